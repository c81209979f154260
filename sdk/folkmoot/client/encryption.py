"""Whether payloads are encrypted: what the user expects, what the ledger says, and what an envelope shows must agree."""

from enum import StrEnum

from folkmoot.trust import EncryptionDisagrees, FolkmootError, Source, State, inspect
from folkmoot.v1 import errors_pb2
from folkmoot.v1.ledger_pb2 import Encryption


class Expectation(StrEnum):
    """What a user expects of a collaboration."""

    SEALED = "sealed"
    PLAIN = "plain"

    @classmethod
    def parse(cls, text: str | None) -> "Expectation | None":
        """What the text says; None if it says nothing. Raises INVALID_FIELD."""
        try:
            return cls(text) if text else None
        except ValueError as error:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_INVALID_FIELD, f"encryption is 'sealed' or 'plain', not {text!r}"
            ) from error

    def check(self, state: State) -> None:
        """Raise EncryptionDisagrees unless the ledger says the same."""
        if self is not encryption_of(state):
            raise EncryptionDisagrees(
                f"{state.reference} was founded as a collaboration whose payloads are {_WORDS[encryption_of(state)]}, and you expect "
                f"them to be {_WORDS[self]} (encryption = {str(self)!r})"
            )


_WORDS = {Expectation.SEALED: "encrypted", Expectation.PLAIN: "signed but not encrypted, readable for the server"}


def encryption_of(state: State) -> Expectation:
    """What the ledger says."""
    return Expectation.PLAIN if state.encryption == Encryption.ENCRYPTION_PLAIN else Expectation.SEALED


def check_envelope(source: Source, state: State) -> None:
    """Raise EncryptionDisagrees unless an envelope is sealed where the ledger says so; EnvelopeRejected for what is none."""
    shown = Expectation.SEALED if inspect(source).sealed else Expectation.PLAIN
    if shown is not encryption_of(state):
        raise EncryptionDisagrees(
            f"what came is {_WORDS[shown]}, and {state.reference} was founded as a collaboration whose payloads are "
            f"{_WORDS[encryption_of(state)]}: somebody pretends otherwise"
        )
