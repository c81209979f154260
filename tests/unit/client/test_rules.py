"""Rules as people write them: every rule comes back from text and from the contract, and a wrong one is told with what there is."""

from itertools import product
from typing import Any

import pytest

from folkmoot.client import FolkmootError, Rule
from folkmoot.client.admin.rules import KNOWN, rules_of
from folkmoot.v1.auth_service_pb2 import RoleRule


def test_every_rule_survives_text_and_message():
    for parts in product(*KNOWN.values()):
        rule = Rule(*parts)
        assert Rule.parse(str(rule)) == Rule.parse(str(rule).upper()) == rule
        assert rules_of([rule.message()]) == (rule,)


def test_word_of_a_later_release_stands_as_its_number():
    later: Any = RoleRule
    assert str(Rule.of(later(resource=99, operation=1, scope=4))) == "99:view:global"


@pytest.mark.parametrize(
    "text", ["", "task", "task:create", "task:create:own:more", "tusk:create:own", "task:create:near"]
)
def test_what_is_no_rule_is_told(text: str):
    with pytest.raises(FolkmootError) as caught:
        Rule.parse(text)
    assert caught.value.reason_name == "INVALID_FIELD"
