"""Where a run's image comes from: its signatures are looked up when the policy asks for them, and before anything of it is fetched."""

import dataclasses

from folkmoot.node.execution.outcomes import Outcome, refused
from folkmoot.node.execution.patience import Tell
from folkmoot.node.policy.verdict import Decision, Refused
from folkmoot.node.proxy.runs import Run
from folkmoot.v1.errors_pb2 import ErrorReason


async def unless_signed(run: Run, tell: Tell) -> Outcome | None:
    """How a run ends whose image nobody has signed who would have to; None if its image may be fetched.

    Raises FolkmootError if that can't be found out.
    """
    decision = _decide(run)
    if isinstance(decision, Refused) and decision.reason == ErrorReason.ERROR_REASON_IMAGE_NOT_SIGNED:
        await run.station.signatures.look_up(run.task.spec.image, tell)
        decision = _decide(run)
    if not isinstance(decision, Refused):
        return None
    run.record = dataclasses.replace(run.record, policy_digest=run.station.policy_file.digest)
    return refused(decision.reason, decision.rule)


def _decide(run: Run) -> Decision:
    signers = run.station.signatures.signers(run.task.spec.image)
    return run.station.decide(run.task, function=run.function, image_signers=signers, reads=run.dataframes.read)
