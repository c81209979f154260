"""Results: a value, or in words why there is none."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from folkmoot.client import FolkmootError, Proof, Result, RunFailed, RunState
from folkmoot.client.results import explain, run_state
from folkmoot.trust import EnvelopeRejected
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1 import task_pb2


def opened(*pieces: bytes, content_type: str = "application/json") -> Any:
    """An envelope that was opened."""
    return SimpleNamespace(
        context=SimpleNamespace(content_type=content_type),
        total_length=sum(map(len, pieces)),
        read=lambda: iter(pieces),
        content=lambda: b"".join(pieces),
    )


def result(state: RunState = RunState.COMPLETED, **fields: Any) -> Result:
    usual: dict[str, Any] = {
        "organization": "Beta",
        "organization_id": "b",
        "run_id": "r",
        "attempt": 1,
        "state": state,
        "proven": Proof.PROVEN,
    }
    return Result(**(usual | fields))


def test_states_are_those_of_the_contract():
    named = [value.name.removeprefix("RUN_STATE_") for value in task_pb2.RunState.DESCRIPTOR.values if value.number]
    assert [state.value for state in RunState] == named
    assert run_state(task_pb2.RUN_STATE_HELD) is RunState.HELD
    assert [state for state in RunState if state.ended] == [run_state(number) for number in range(8, 14)]


def test_proof_is_true_only_if_proven():
    assert bool(Proof.PROVEN)
    assert not Proof.SERVER_SAYS
    assert str(Proof.SERVER_SAYS) == "server says"


def test_value_is_decoded_by_its_type():
    assert result(content=opened(b'{"mean"', b":1.5}")).value == {"mean": 1.5}
    assert result(content=opened(b"\x00\x01", content_type="application/octet-stream")).value == b"\x00\x01"


def test_value_that_is_not_what_its_type_says():
    with pytest.raises(FolkmootError, match="Beta"):
        result(content=opened(b"{")).value  # noqa: B018


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": RunState.FAILED, "failure": "no column age"}, "no column age"),
        ({"state": RunState.CRASHED, "exit_class": "OUT_OF_MEMORY"}, "memory"),
        ({"state": RunState.CRASHED, "exit_class": "NO_RESULT", "failure": "last words"}, "last words"),
        (
            {"state": RunState.REFUSED, "reason": reasons.ERROR_REASON_IMAGE_NOT_ALLOWED, "rule": "images"},
            r"IMAGE_NOT_ALLOWED \(rule: images\)",
        ),
        ({"state": RunState.CANCELLED, "proven": Proof.SERVER_SAYS}, "the server says so"),
        ({"state": RunState.EXPIRED, "proven": Proof.SERVER_SAYS}, "before it began"),
    ],
)
def test_run_without_a_value_says_why(fields: dict[str, Any], words: str):
    ended = result(**fields)
    with pytest.raises(RunFailed, match=f"Beta: .*{words}") as failed:
        ended.value  # noqa: B018
    assert failed.value.state is fields["state"]
    assert failed.value.reason == fields.get("reason", 0)
    assert not ended.has_value


def test_completion_that_no_node_signed_gives_no_value():
    claimed = result(proven=Proof.SERVER_SAYS, content=opened(b"1"))
    with pytest.raises(RunFailed, match="receipt"):
        claimed.value  # noqa: B018


def test_result_sealed_to_others_shows_its_state_and_no_value():
    elsewhere = result()
    elsewhere.raise_for_state()
    assert not elsewhere.has_value
    with pytest.raises(RunFailed, match="sealed to other organizations"):
        elsewhere.value  # noqa: B018


def test_rejected_content_is_raised_when_the_value_is_asked_for():
    with pytest.raises(EnvelopeRejected):
        result(problem=EnvelopeRejected("altered")).value  # noqa: B018


def test_every_ending_can_be_explained():
    for state in RunState:
        assert explain(result(state))


def test_save_writes_the_bytes_and_replaces_what_was_there(tmp_path: Path):
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    result(content=opened(b"ab", b"cd", content_type="application/octet-stream")).save(target)
    assert target.read_bytes() == b"abcd"
    assert list(tmp_path.iterdir()) == [target]


def test_save_that_breaks_off_leaves_what_was_there(tmp_path: Path):
    def altered() -> Any:
        yield b"ab"
        raise EnvelopeRejected("altered on disk")

    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    content = opened(b"abcd")
    content.read = altered
    with pytest.raises(EnvelopeRejected):
        result(content=content).save(target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
