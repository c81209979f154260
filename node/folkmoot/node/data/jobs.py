"""What a reading process is told of a source: its settings with the credential and with a volume's place on this machine.

A job goes to the process through its standard input: neither the command line nor the environment ever holds a credential.
"""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

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
    return await asyncio.to_thread(_below, name, below)


def secrets_of(job: dict[str, Any]) -> Iterator[str]:
    """All credentials of a job, as they are and as a URL or a header would have them."""
    if secret := job["secret"]:
        login = f"{unquote(urlsplit(job['url']).username or '')}:{secret}"
        yield from (secret, quote(secret, safe=""), quote(secret), quote_plus(secret), repr(secret)[1:-1])
        yield base64.b64encode(login.encode()).decode()
    for one in job["of"]:
        yield from secrets_of(one)


def _below(name: str, path: str) -> Path:
    """A place in a volume. What is in a volume was put there by containers: no link in it leads anywhere else on this machine."""
    mount_point = _mount_point(name)
    found = mount_point / path
    if not found.resolve().is_relative_to(mount_point.resolve()):
        raise OSError(f"{path} leads out of volume {name}")
    return found


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
