"""All targets: the modules that fill the table, in one place."""

from tests.fuzz import envelopes, files, intents, keys, ledgers, tasks  # noqa: F401 - they fill the table
from tests.fuzz.target import TARGETS, Target

__all__ = ["TARGETS", "Target"]
