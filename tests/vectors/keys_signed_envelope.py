"""keys.json, more_keys.json, signed.json and envelope.json as files: one case to a line, so that a change shows as that case."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vectors import envelope_cases, key_cases, more_key_cases, signed_cases

FOLDER = Path(__file__).parent
DOCUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "keys.json": key_cases.document,
    "more_keys.json": more_key_cases.document,
    "signed.json": signed_cases.document,
    "envelope.json": envelope_cases.document,
}


def text(document: dict[str, Any]) -> str:
    """Return a document as it is committed."""
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_lines(value)}" for name, value in document.items()) + "\n}\n"


def _lines(value: Any) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(item)}" for name, item in value.items()) + "\n}"
    return json.dumps(value)
