"""What the server could see of the demo: read from its own files, as its operator could.

Metadata is in the open, by design. Payloads are envelopes: the search goes through every file of the server for the hospitals' patient
counts and the answers, in the forms in which they would stand there if they were not sealed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from folkmoot.cli.demo.analyses import Answer
from folkmoot.v1.task_pb2 import TaskSpec

SHORTEST_SECRET = 6
"""A text shorter than this is found anywhere by chance, so it can't be searched for by itself."""


def seen(answers: Sequence[Answer], names: Mapping[str, str], folder: Path) -> list[str]:
    """Lines that say what the server knows, and what a search of its files finds."""
    specs = [task.spec for answer in answers for task in answer.tasks]
    example: TaskSpec = specs[0]
    sizes = sorted(reference.size_bytes for spec in specs for reference in spec.inputs)
    files = [path for path in folder.rglob("*") if path.is_file()]
    searched = secrets(answers)
    found = [text for text in searched if any(text.encode() in path.read_bytes() for path in files)]
    verdict = f"found {', '.join(found)}" if found else "none found"
    return [
        f"{len(specs)} tasks of the researcher, for example {example.name!r}:",
        f"  who asks whom: {names[example.initiator.organization_id]} asks "
        + ", ".join(names[receiver.organization_id] for receiver in example.receivers),
        f"  data labels {', '.join(example.labels)}; purpose {example.purpose!r}; the image's digest; times; sizes",
        f"  inputs: sealed envelopes of {sizes[0]} to {sizes[-1]} bytes; function and arguments are inside",
        f"results, errors, logs, messages: sealed; searched {len(files)} files for {len(searched)} texts: {verdict}",
    ]


def secrets(answers: Sequence[Answer]) -> list[str]:
    """Texts that stand in unsealed payloads of these answers: function calls and results."""
    texts = [answer.ours for answer in answers] + [
        json.dumps(name) for name in ("partial_average", "count_events", "mask", "unmask", "ring")
    ]
    return [text for text in texts if len(text) >= SHORTEST_SECRET]
