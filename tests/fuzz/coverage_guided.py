"""Fuzzing that follows coverage: atheris keeps every input that reaches new code, and alters it further.

    python -m tests.fuzz.coverage_guided FOLDER SECONDS [SEED]

FOLDER gets what the targets read when all is right (seeds/), keeps what was found interesting (corpus/), and the input of a fault
(crash-..., timeout-..., oom-...), which `read` takes again. An input is a target's name, a NUL, and what that target reads.
"""

import sys
from pathlib import Path
from random import Random

import atheris

from tests.fuzz.mutation import MOST_BYTES, mutate

with atheris.instrument_imports(include=["folkmoot.trust"]):
    from tests.fuzz.targets import TARGETS

SLOWEST_SECONDS = 10
MOST_MEMORY_MIB = 1024
SEPARATOR = b"\0"


def read(data: bytes) -> None:
    """Have the target read its input. What is raised here ends the run as a fault."""
    name, _, rest = data.partition(SEPARATOR)
    each = TARGETS.get(name.decode("ascii", "replace"))
    if each is None:
        return
    taken = each.takes(rest)
    if each.second and each.second_takes(rest) != taken:
        raise AssertionError(f"the readers disagree: {name!r}")


def altered(data: bytes, max_size: int, seed: int) -> bytes:
    """Alter what a target reads, most times as who knows how it is built."""
    name, _, rest = data.partition(SEPARATOR)
    random = Random(seed)
    if random.random() < 0.3:
        return name + SEPARATOR + bytes(atheris.Mutate(rest, max_size - len(name) - 1))
    return (name + SEPARATOR + mutate(rest, random))[:max_size]


def write_seeds(folder: Path) -> None:
    """Write what every target reads when all is right."""
    for number, each in enumerate(TARGETS.values()):
        for index, seed in enumerate(each.seeds):
            folder.joinpath(f"{number}-{index}").write_bytes(each.name.encode() + SEPARATOR + seed)


def main(folder: Path, duration_seconds: int, seed: int) -> None:
    """Run until the time is over or a fault is found."""
    corpus, seeds = folder / "corpus", folder / "seeds"
    for each in (corpus, seeds):
        each.mkdir(parents=True, exist_ok=True)
    write_seeds(seeds)
    options = {
        "max_total_time": duration_seconds,
        "timeout": SLOWEST_SECONDS,
        "rss_limit_mb": MOST_MEMORY_MIB,
        "max_len": MOST_BYTES,
        "seed": seed,
        "artifact_prefix": f"{folder}/",
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus), str(seeds)], read, custom_mutator=altered)
    atheris.Fuzz()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
