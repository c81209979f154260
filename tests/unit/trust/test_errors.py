"""The tree of errors is the one that is drawn, and all of it comes from the catalogue."""

import re

from folkmoot.trust import errors
from folkmoot.trust.errors import EnvelopeRejected, FolkmootError, Malformed, TrustError
from folkmoot.v1.errors_pb2 import ErrorReason


def subclasses(root: type[FolkmootError]) -> list[type[FolkmootError]]:
    return [root, *(below for child in root.__subclasses__() for below in subclasses(child))]


def test_drawing_shows_the_tree():
    drawn = re.findall(r"^[ │├└─]*([A-Z]\w+)  +\w", errors.__doc__, re.MULTILINE)
    ours = [error.__name__ for error in subclasses(FolkmootError) if error.__module__ == errors.__name__]
    assert drawn == ours


def test_each_kind_of_trust_error_has_its_own_reason_and_advice():
    kinds = TrustError.__subclasses__()
    assert len({kind.REASON for kind in kinds}) == len(kinds)
    for kind in kinds:
        error = kind("What happened.")
        assert error.reason == kind.REASON
        assert ErrorReason.Name(kind.REASON) == f"ERROR_REASON_{error.reason_name}"
        assert error.help.endswith(".")


def test_text_says_what_happened():
    error = Malformed("A TaskSpec does not parse.", metadata={"rule": "FORM"})
    assert (str(error), error.reason_name, error.metadata) == (
        "A TaskSpec does not parse.",
        "MALFORMED",
        {"rule": "FORM"},
    )


def test_reason_of_a_later_release_stays_readable():
    error = FolkmootError(9999, "Something new.")
    assert (error.reason_name, error.help) == ("REASON_9999", "")


def test_cause_of_a_rejected_envelope_stays_inside():
    error = EnvelopeRejected("chunk 3 does not decrypt")
    assert error.cause_text == "chunk 3 does not decrypt"
    assert "chunk" not in f"{error} {error!r} {error.message} {error.metadata}"
