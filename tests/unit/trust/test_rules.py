"""docs/rules.md says what the code checks, in the same words."""

from pathlib import Path

import pytest

from folkmoot.trust.rules import ApprovalRule, LedgerRule, ReceiptRule, TaskRule

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "rules.md"


@pytest.mark.parametrize(
    ("rules", "heading"),
    [(LedgerRule, "Ledgers"), (TaskRule, "Tasks"), (ReceiptRule, "Receipts"), (ApprovalRule, "Approvals")],
)
def test_every_rule_is_documented_under_its_heading(rules, heading):
    section = DOCUMENT.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{rule.name}` | {rule.value} |" for rule in rules]


def test_no_two_rules_say_the_same():
    """An Enum would take the second for another name of the first."""
    for rules in (LedgerRule, TaskRule, ReceiptRule, ApprovalRule):
        assert list(rules.__members__) == [rule.name for rule in rules]
