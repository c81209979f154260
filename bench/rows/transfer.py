"""Upload, download and memory: a payload on its way from a researcher through server and node and back.

Up is `tasks.create` with the payload as an argument: sealed into a file, brought to the server in parts, durable there.
Down is everything from asking for the result to its last decrypted byte. In between a node fetches, opens and hands out
the payload, and seals and uploads what its algorithm returns: the same bytes. Memory is the peak above what each process
held before; the researcher's own copy of the payload counts as held.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from bench.context import Context
from bench.limits import transfer
from bench.limits.common import Child, Detail, peak_resident_mebibytes, reset_peak, resident_mebibytes
from bench.report import Row, at_most, ratio_at_least
from bench.rows._samples import spread
from bench.rows._stage import Stage, Station, calm, stage

REPETITIONS = 5
LIMITS = "memory_bytes = 17179869184\nresult_bytes = 17179869184"
MEMORY = ("researcher", "server", "node")


def measure(context: Context) -> list[Row]:
    limit = transfer.measure(size_bytes=context.payload_bytes, folder=context.folder, repetitions=REPETITIONS)
    samples = asyncio.run(_samples(context))
    size = f"{context.payload_bytes / 1e6:,.0f} MB"
    up, down = (
        Row(
            f"{name} {size}",
            figure.unit,
            statistics.median(samples[name]),
            figure.value,
            (ratio_at_least(0.5),),
            peers=peers,
            note=f"{spread(samples[name])}; limit {spread(figure.samples)}",
        )
        for name, figure, peers in (
            ("upload", limit.upload, "vantage6 31, Flower 28"),
            ("download", limit.download, "vantage6 48, Flower 28"),
        )
    )
    return [
        up,
        down,
        *(
            Row(
                f"memory {size}: {name}",
                "MiB",
                max(samples[name]),
                None,
                (at_most(64),),
                peers="vantage6 server 4,600 for 500 MB" if name == "server" else "",
                note=f"above rest; {spread(samples[name])}",
            )
            for name in MEMORY
        ),
    ]


async def _samples(context: Context) -> Mapping[str, Sequence[float]]:
    taken: defaultdict[str, list[float]] = defaultdict(list)
    async with stage(Station(limits=LIMITS), parent=context.folder) as playing:
        with await asyncio.to_thread(_researcher, playing) as researcher:
            for _ in range(1 + REPETITIONS):
                for name, value in (await _there_and_back(playing, researcher, context.payload_bytes)).items():
                    taken[name].append(value)
    return {name: values if name in MEMORY else values[1:] for name, values in taken.items()}


def _researcher(playing: Stage) -> Child:
    one = playing.initiator
    settings = {
        "collaboration": str(playing.cast.reference),
        "server": playing.cast.address.target,
        "certificate_authority": str(playing.cast.authority_file),
        "username": one.researcher,
        "password": one.password,
        "organization_key": str(one.key_file),
        "state_directory": str(one.folder / "client"),
        "organization": one.name,
        "image": playing.station.image,
    }
    return Child("-m", "bench.rows._researcher", json.dumps(settings))


async def _there_and_back(playing: Stage, researcher: Child, size_bytes: int) -> dict[str, float]:
    """One payload through all of it: MB/s up and down, and MiB that each process took."""
    watched = {"server": playing.processes["server"].pid, "node": playing.processes[playing.initiator.name.lower()].pid}
    await _settle(5 * size_bytes)
    before = {name: resident_mebibytes(pid) for name, pid in watched.items()}
    for pid in watched.values():
        reset_peak(pid)
    sent = await asyncio.to_thread(researcher.ask, {"do": "send", "size_bytes": size_bytes})
    await _settle(2 * size_bytes)
    fetched = await asyncio.to_thread(researcher.ask, {"do": "fetch"})
    if fetched["size_bytes"] != size_bytes:
        raise RuntimeError(f"sent {size_bytes} bytes, got {fetched['size_bytes']} back")
    return {
        "upload": _rate(size_bytes, sent),
        "download": _rate(size_bytes, fetched),
        "researcher": max(float(sent["mebibytes"]), float(fetched["mebibytes"])),
        **{name: peak_resident_mebibytes(pid) - before[name] for name, pid in watched.items()},
    }


async def _settle(memory_bytes: int) -> None:
    """Let the disk finish what was written before, and the machine find the memory that files will be cached in.

    A virtual machine gets a page from its host at first use, which can take longer than all that is measured here.
    """
    await asyncio.to_thread(os.sync)
    await calm()
    await asyncio.to_thread(bytearray, memory_bytes)


def _rate(size_bytes: int, cost: Mapping[str, Detail]) -> float:
    return size_bytes / 1e6 / float(cost["seconds"])
