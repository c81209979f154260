"""What a reading process is told of a source: its settings with the credential and with a volume's place on this machine.

A job goes to the process through its standard input: neither the command line nor the environment ever holds a credential.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from folkmoot.node.data.sources import VOLUME, Source, environment_secret


async def job_of(label: str, source: Source) -> dict[str, Any]:
    """Return the settings of a source as `table_source.Settings` has them. Raises OSError or KeyError if something is missing."""
    return {
        "label": label,
        "kind": source.kind,
        "path": str(await place(source.path)) if source.path else "",
        "table": source.table,
        "schema": source.schema,
        "sql": source.sql,
        "url": source.url,
        "secret": await asyncio.to_thread(environment_secret, source),
        "certificate_authority": str(source.certificate_authority or ""),
        "timeout_seconds": source.timeout_seconds,
        "types": dict(source.types),
        "options": dict(source.options),
        "of": [await job_of(name, one) for name, one in source.of.items()],
    }


async def place(path: Path | str) -> Path:
    """Where a path is on this machine: volume:NAME/path is below the mount point that the container engine tells."""
    text = str(path)
    if not text.startswith(VOLUME):
        return Path(text)
    name, _, below = text.removeprefix(VOLUME).partition("/")
    return await asyncio.to_thread(_mount_point, name) / below


def secrets_of(job: dict[str, Any]) -> Iterator[str]:
    """All credentials of a job."""
    if job["secret"]:
        yield job["secret"]
    for one in job["of"]:
        yield from secrets_of(one)


def _mount_point(name: str) -> Path:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.APIClient(version="auto", **docker.utils.kwargs_from_env())
        try:
            return Path(client.inspect_volume(name)["Mountpoint"])
        finally:
            client.close()
    except DockerException as error:
        raise OSError(f"volume {name}: {error}") from None
