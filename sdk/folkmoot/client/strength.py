"""How strong sealing is: what goes to several organizations is as strong as the weakest of their keys."""

import logging
from collections.abc import Iterable

from folkmoot.trust import Member, State
from folkmoot.v1.keys_pb2 import KeyKind
from folkmoot.v1.ledger_pb2 import Encryption

log = logging.getLogger("folkmoot.client")


def weakest(state: State, members: Iterable[Member]) -> tuple[str, ...]:
    """Names of the receivers whose keys do not stay closed to a quantum computer, sorted; none where nothing is sealed."""
    if state.encryption == Encryption.ENCRYPTION_PLAIN:
        return ()
    current = (state.members.get(each.organization_id, each) for each in members)
    return tuple(
        sorted(each.name for each in current if each.keys and each.keys.encryption.kind == KeyKind.KEY_KIND_RSA)
    )


class StrengthNotice:
    """Says once for each group of weak receivers that a message is as strong as its weakest receiver."""

    def __init__(self) -> None:
        self._said: set[tuple[str, ...]] = set()

    def say(self, state: State, members: Iterable[Member]) -> None:
        """Warn, unless nobody is weak or these were named before."""
        names = weakest(state, members)
        if names and names not in self._said:
            self._said.add(names)
            log.warning(
                "What is sealed to %s with others is as strong as the weakest receiver: recorded today, it does not stay closed "
                "to a quantum computer.",
                ", ".join(names),
            )
