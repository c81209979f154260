"""Tasks that break one rule each, by rule, as chains of signed specs.

Their author holds every key that he could hold: a member's for its own tasks, a node's for its own subtasks.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from folkmoot.trust import SigningKey, digest, serialize, sign, uuid7
from folkmoot.v1.ledger_pb2 import LedgerPosition
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import (
    Dependency,
    Grant,
    Image,
    Initiator,
    LocalImage,
    MessageGrant,
    Parent,
    ProcessImage,
    Receiver,
    RegistryImage,
    Resources,
    TaskInputRef,
    TaskSpec,
)
from tests.builders import DAY, NOW, World, organization
from tests.vectors.forge import MINUTE, UNKNOWN_FIELD, changed, overgrown, stamp

TASK, SUBTASK = SignedKind.SIGNED_KIND_TASK_SPEC, SignedKind.SIGNED_KIND_SUBTASK_SPEC
SHA = f"sha256:{'b' * 64}"
OTHER_IMAGE = Image(local=LocalImage(id=SHA, name="another"))
GRANT = Grant(subtask_depth=2, subtask_number=5, messages=MessageGrant.MESSAGE_GRANT_SIBLINGS)
Chain = list[Signed]


def root(w: World, key: SigningKey | None = None, **changes: Any) -> Signed:
    """Return a root task of Alpha's for Alpha and Beta, granted much, signed whatever it says."""
    wish: dict[str, Any] = {"grant": GRANT, "labels": ["patients", "scans"], "max_attempts": 2}
    spec = changed(w.spec("Alpha", ("Alpha", "Beta"), **wish), **_single(changes))
    return sign(TASK, serialize(_with_lists(spec, changes)), key=key or signing(w), genesis=w.genesis)


def sub(w: World, above: Signed, key: SigningKey | None = None, run_of: str = "Beta", **changes: Any) -> Signed:
    """Return a subtask of a run's for Beta and Gamma, signed whatever it says."""
    spec = changed(w.subspec(above, run_of, ("Beta", "Gamma")), **_single(changes))
    node_key = key or w[run_of].nodes[f"{run_of.lower()}-1"]
    return sign(SUBTASK, serialize(_with_lists(spec, changes)), key=node_key, genesis=w.genesis)


def signing(w: World, name: str = "Alpha") -> SigningKey:
    """Return a task-signing key."""
    return w[name].organization_key.task_signing


def _single(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if not isinstance(value, list)}


def _with_lists(spec: TaskSpec, changes: dict[str, Any]) -> TaskSpec:
    for name, value in changes.items():
        if isinstance(value, list):
            spec.ClearField(name)  # type: ignore[arg-type]
            getattr(spec, name).extend(value)
    return spec


def spec_of(signed: Signed) -> TaskSpec:
    """Return what a signed task says."""
    return TaskSpec.FromString(signed.body)


# ---- rules of every spec --------------------------------------------------------------------------------------------


def chain(w: World) -> Iterator[tuple[str, Chain]]:
    """A chain of another length."""
    yield "no spec at all", []
    deep = [root(w, grant=Grant(subtask_depth=99, subtask_number=1))]
    for level in range(16):
        grant = Grant(subtask_depth=98 - level, subtask_number=1)
        deep.append(sub(w, deep[-1], grant=grant))
    yield "17 levels", deep


def form(w: World) -> Iterator[tuple[str, Chain]]:
    """A spec that is not written as this release writes it."""
    body = root(w).body
    yield "unknown field in the spec", [sign(TASK, body + UNKNOWN_FIELD, key=signing(w), genesis=w.genesis)]
    yield "cut off spec", [sign(TASK, body[:-1], key=signing(w), genesis=w.genesis)]
    for case, changes in _form_changes().items():
        yield case, [root(w, **changes)]
    wide = overgrown(TaskSpec.FromString(body), "max_attempts")
    yield "max_attempts that are 2 only if cut off", [sign(TASK, wide, key=signing(w), genesis=w.genesis)]


def _form_changes() -> dict[str, dict[str, Any]]:
    return {
        "format 2": {"version": 2},
        "no format": {"version": None},
        "scratch of a later release": {"scratch": 9},
        "message grant of a later release": {"grant": Grant(messages=9)},  # type: ignore[arg-type]
        "without time": {"created_at": None},
        "without expiry": {"expires_at": None},
    }


def signature(w: World) -> Iterator[tuple[str, Chain]]:
    """Tasks that were not signed by who must."""
    right = root(w)
    body = right.body
    yield "root signed by another member", [root(w, signing(w, "Beta"))]
    yield "root signed by the governance key", [root(w, w["Alpha"].governance_key)]
    yield "root signed by a node of the organization", [root(w, w["Alpha"].nodes["alpha-1"])]
    yield "root signed as a subtask", [sign(SUBTASK, body, key=signing(w), genesis=w.genesis)]
    yield "root signed for another collaboration", [sign(TASK, body, key=signing(w), genesis=bytes(32))]
    altered = serialize(changed(spec_of(right), image=OTHER_IMAGE))
    yield "image put in by the server", [changed(right, body=altered)]
    for case, key in {
        "subtask signed by another organization's node": w["Gamma"].nodes["gamma-1"],
        "subtask signed by a machine that is no node": SigningKey.generate(w.random),
        "subtask signed by the organization's task-signing key": signing(w, "Beta"),
    }.items():
        yield case, [right, sub(w, right, key)]
    below = sub(w, right)
    node_key = w["Beta"].nodes["beta-1"]
    yield "subtask signed as a root", [right, sign(TASK, below.body, key=node_key, genesis=w.genesis)]
    yield "subtask with half a key id", [right, changed(below, key_id=below.key_id[:16])]
    yield "subtask of an altered root", [changed(right, body=altered), sub(w, changed(right, body=altered))]


def collaboration(w: World) -> Iterator[tuple[str, Chain]]:
    """Tasks of other collaborations."""
    yield "genesis of another collaboration", [root(w, genesis=bytes(32))]
    above = root(w)
    yield "subtask of another collaboration", [above, sub(w, above, genesis=bytes(32))]


def ledger_position(w: World) -> Iterator[tuple[str, Chain]]:
    """Tasks made on another ledger than ours."""
    yield "another hash at a known sequence", [root(w, ledger_position=LedgerPosition(sequence=1, hash=bytes(32)))]
    yield "no ledger position", [root(w, ledger_position=None)]


def identities(w: World) -> Iterator[tuple[str, Chain]]:
    """Ids that are none, or not unique."""
    above = root(w)
    task_id = spec_of(above).task_id
    wrong: dict[str, dict[str, Any]] = {
        "task id that is no UUID": {"task_id": "task-1"},
        "task id in capitals": {"task_id": task_id.upper()},
        "no job id": {"job_id": None},
    }
    for case, changes in wrong.items():
        yield case, [root(w, **changes)]
    alpha, beta, run = w["Alpha"].address, w["Beta"].address, uuid7(NOW, w.random)
    twice = [Receiver(organization_id=alpha, run_id=run), Receiver(organization_id=beta, run_id=run)]
    yield "one run for two organizations", [root(w, receivers=twice)]
    yield "run id that is no UUID", [root(w, receivers=[Receiver(organization_id=alpha, run_id="1")])]
    yield "subtask with its parent's id", [above, sub(w, above, task_id=task_id)]
    taken = [Receiver(organization_id=beta, run_id=spec_of(above).receivers[1].run_id)]
    yield "subtask with its parent's run", [above, sub(w, above, receivers=taken)]


def member(w: World) -> Iterator[tuple[str, Chain]]:
    """Organizations from outside."""
    delta = w.organizations["Delta"] = organization("Delta")
    outside = [Receiver(organization_id=delta.address, run_id=uuid7(NOW, w.random))]
    yield "receiver that is not a member", [root(w, receivers=outside)]
    yield "receiver by name", [root(w, receivers=[Receiver(organization_id="Beta", run_id=outside[0].run_id)])]
    yield "results for somebody outside", [root(w, result_receivers=[delta.address])]
    initiator = Initiator(organization_id=delta.address, user_id="ada")
    yield "initiator that is not a member", [root(w, signing(w, "Delta"), initiator=initiator)]
    yield "no initiator", [root(w, initiator=None)]


def user(w: World) -> Iterator[tuple[str, Chain]]:
    """Users where there can be none, or texts."""
    address = w["Alpha"].address
    yield "user of 129 bytes", [root(w, initiator=Initiator(organization_id=address, user_id="x" * 129))]
    above = root(w)
    named = Initiator(organization_id=w["Beta"].address, user_id="ada")
    yield "subtask in a user's name", [above, sub(w, above, initiator=named)]


def image(w: World) -> Iterator[tuple[str, Chain]]:
    """Images that somebody could put another in the place of."""
    repository, tree = "registry.example.org/folkmoot/average", bytes(32)
    for case, wrong in {
        "no source": Image(),
        "registry image without digest": Image(registry=RegistryImage(repository=repository)),
        "registry image with a tag": Image(registry=RegistryImage(repository=f"{repository}:1", digest=SHA)),
        "registry image with a short digest": Image(registry=RegistryImage(repository=repository, digest=SHA[:-1])),
        "registry image without repository": Image(registry=RegistryImage(digest=SHA)),
        "local image by name": Image(local=LocalImage(id="average:1", name="average:1")),
        "local image called by 256 bytes": Image(local=LocalImage(id=SHA, name="x" * 256)),
        "local image in capitals": Image(local=LocalImage(id=SHA.upper())),
        "module by path": Image(process=ProcessImage(module="examples/average", tree_hash=tree)),
        "module without tree hash": Image(process=ProcessImage(module="examples.average")),
    }.items():
        yield case, [root(w, image=wrong)]
        yield f"granted {case}", [root(w, grant=Grant(images=[wrong]))]


def receivers(w: World) -> Iterator[tuple[str, Chain]]:
    """Runs for nobody, or twice for one."""
    address = w["Beta"].address
    twice = [Receiver(organization_id=address, run_id=uuid7(NOW, w.random)) for _ in range(2)]
    yield "no receiver", [root(w, receivers=[], inputs=[])]
    yield "an organization twice", [root(w, receivers=twice)]


def result_receivers(w: World) -> Iterator[tuple[str, Chain]]:
    """Results for nobody, or twice for one."""
    yield "no result receiver", [root(w, result_receivers=[])]
    yield "a result receiver twice", [root(w, result_receivers=[w["Alpha"].address] * 2)]


def inputs(w: World) -> Iterator[tuple[str, Chain]]:
    """Inputs for too few, too many, or of no envelope."""
    alpha, beta, gamma = (w[name].address for name in ("Alpha", "Beta", "Gamma"))

    def given(*organizations: str, **changes: Any) -> TaskInputRef:
        wish: dict[str, Any] = {"organization_ids": organizations, "envelope_digest": bytes(32), "size_bytes": 1}
        return TaskInputRef(**(wish | changes))

    for case, wrong in {
        "no input": [],
        "a receiver without input": [given(alpha)],
        "a receiver with two inputs": [given(alpha, beta), given(beta)],
        "a receiver twice in one input": [given(alpha, beta, beta)],
        "two inputs for everybody": [given(), given()],
        "one for everybody and one for Beta": [given(), given(beta)],
        "one for everybody and one for each by name": [given(), given(alpha, beta)],
        "an input for who is no receiver": [given(alpha, beta, gamma)],
        "a short digest": [given(envelope_digest=bytes(31))],
        "no size": [given(size_bytes=0)],
    }.items():
        yield f"inputs: {case}", [root(w, inputs=wrong)]


def dependencies(w: World) -> Iterator[tuple[str, Chain]]:
    """Dependencies that can't be, or name nothing that can be checked."""
    above, earlier = root(w), uuid7(NOW, w.random)
    own = spec_of(above).task_id
    itself = Dependency(task_id=own, task_digest=bytes(32))
    yield "on itself", [root(w, task_id=own, depends_on=[itself])]
    yield "on its parent", [above, sub(w, above, depends_on=[Dependency(task_id=own, task_digest=digest(above.body))])]
    yield "twice on one", [root(w, depends_on=[Dependency(task_id=earlier, task_digest=bytes(32))] * 2)]
    yield "without digest", [root(w, depends_on=[Dependency(task_id=earlier)])]
    yield "on what is no UUID", [root(w, depends_on=[Dependency(task_id="1", task_digest=bytes(32))])]


def labels(w: World) -> Iterator[tuple[str, Chain]]:
    """Labels that name nothing."""
    yield "a label twice", [root(w, labels=["patients", "patients"])]
    yield "an empty label", [root(w, labels=[""])]
    yield "a label of 129 bytes", [root(w, labels=["x" * 129])]


def resources(w: World) -> Iterator[tuple[str, Chain]]:
    """Resources that nobody can give."""
    for case, run_time in {
        "negative": Duration(seconds=-1),
        "zero": Duration(),
        "half negative": Duration(seconds=1, nanos=-1),
    }.items():
        yield f"running time: {case}", [root(w, resources=Resources(run_time=run_time))]
    yield "a resource class of 64 bytes", [root(w, resources=Resources(resource_class="x" * 64))]


def max_attempts(w: World) -> Iterator[tuple[str, Chain]]:
    """Runs that may not be tried."""
    yield "no attempt", [root(w, max_attempts=None)]


def term(w: World) -> Iterator[tuple[str, Chain]]:
    """Tasks that live too long, or not at all."""
    yield "7 days and a nanosecond", [root(w, expires_at=stamp(NOW + 7 * DAY, 1))]
    yield "expires as it is made", [root(w, expires_at=stamp(NOW))]


def time_ahead(w: World) -> Iterator[tuple[str, Chain]]:
    """Tasks from the future."""
    yield "five minutes and a nanosecond ahead", [root(w, created_at=stamp(NOW + 5 * MINUTE, 1))]
    above = root(w)
    yield "subtask from the future", [above, sub(w, above, created_at=stamp(NOW + timedelta(hours=1)))]


# ---- rules of the chain ---------------------------------------------------------------------------------------------


def root_rule(w: World) -> Iterator[tuple[str, Chain]]:
    """Chains without their beginning."""
    above = root(w)
    yield "a subtask alone", [sub(w, above)]
    parent = Parent(
        task_id=spec_of(above).task_id, task_digest=digest(above.body), run_id=uuid7(NOW, w.random), attempt=1
    )
    yield "a root with a parent", [root(w, parent=parent)]


def parent(w: World) -> Iterator[tuple[str, Chain]]:
    """Subtasks of other tasks than the one above them."""
    above, other = root(w), root(w)
    right = spec_of(sub(w, above)).parent
    wrong: dict[str, dict[str, Any]] = {
        "another task": {"task_id": spec_of(other).task_id},
        "another digest": {"task_digest": digest(other.body)},
        "a run of another task": {"run_id": spec_of(other).receivers[1].run_id},
        "attempt 0": {"attempt": None},
        "an attempt too many": {"attempt": 3},
    }
    for case, changes in wrong.items():
        yield f"parent: {case}", [above, sub(w, above, parent=changed(right, **changes))]
    yield "parent: none", [above, sub(w, above, parent=None)]
    yield "under another root", [other, sub(w, above)]
    below = sub(w, above, grant=Grant(subtask_depth=1, subtask_number=1))
    yield "a level left out", [above, sub(w, below)]


def initiator(w: World) -> Iterator[tuple[str, Chain]]:
    """Subtasks in another organization's name."""
    above = root(w)
    gamma = Initiator(organization_id=w["Gamma"].address)
    yield "by who does not run the parent", [above, sub(w, above, w["Gamma"].nodes["gamma-1"], initiator=gamma)]
    alpha = Initiator(organization_id=w["Alpha"].address)
    yield "by another run of the parent", [above, sub(w, above, w["Alpha"].nodes["alpha-1"], initiator=alpha)]


def job(w: World) -> Iterator[tuple[str, Chain]]:
    """Subtasks of other jobs, whose scratch they would see."""
    above = root(w)
    yield "another job", [above, sub(w, above, job_id=uuid7(NOW, w.random))]


def grant_depth(w: World) -> Iterator[tuple[str, Chain]]:
    """Subtasks deeper than granted."""
    above = root(w, grant=Grant(subtask_number=5))
    yield "no subtasks granted", [above, sub(w, above)]
    above = root(w)
    yield "granted as much as its parent", [above, sub(w, above, grant=Grant(subtask_depth=2, subtask_number=1))]


def grant_number(w: World) -> Iterator[tuple[str, Chain]]:
    """More subtasks than granted."""
    above = root(w, grant=Grant(subtask_depth=2))
    yield "no number granted", [above, sub(w, above)]
    above = root(w)
    yield "granted more than its parent", [above, sub(w, above, grant=Grant(subtask_depth=1, subtask_number=6))]


def grant_images(w: World) -> Iterator[tuple[str, Chain]]:
    """Images that were not granted."""
    above = root(w)
    yield "another image than its parent's", [above, sub(w, above, image=OTHER_IMAGE)]
    yield "grants an image that it was not granted", [above, sub(w, above, grant=Grant(images=[OTHER_IMAGE]))]
    module = Image(process=ProcessImage(module="examples.average", tree_hash=bytes(32)))
    above = root(w, image=module)
    altered = Image(process=ProcessImage(module="examples.average", tree_hash=b"\1" * 32))
    yield "the same module with other files", [above, sub(w, above, image=altered)]


def grant_messages(w: World) -> Iterator[tuple[str, Chain]]:
    """Messages that were not granted."""
    above = root(w, grant=Grant(subtask_depth=1, subtask_number=1))
    yield "messages that its parent lacks", [above, sub(w, above, grant=Grant(messages=GRANT.messages))]


def grant_labels(w: World) -> Iterator[tuple[str, Chain]]:
    """Data that was not granted."""
    above = root(w, labels=["patients"])
    yield "a label that its parent lacks", [above, sub(w, above, labels=["patients", "scans"])]


def grant_term(w: World) -> Iterator[tuple[str, Chain]]:
    """Subtasks that outlive their parent."""
    above = root(w)
    yield "a nanosecond longer than its parent", [above, sub(w, above, expires_at=stamp(NOW + DAY, 1))]


RULES = {
    "CHAIN": chain,
    "FORM": form,
    "SIGNATURE": signature,
    "COLLABORATION": collaboration,
    "LEDGER_POSITION": ledger_position,
    "ID": identities,
    "MEMBER": member,
    "USER": user,
    "IMAGE": image,
    "RECEIVERS": receivers,
    "RESULT_RECEIVERS": result_receivers,
    "INPUTS": inputs,
    "DEPENDENCIES": dependencies,
    "LABELS": labels,
    "RESOURCES": resources,
    "MAX_ATTEMPTS": max_attempts,
    "TERM": term,
    "TIME_AHEAD": time_ahead,
    "ROOT": root_rule,
    "PARENT": parent,
    "INITIATOR": initiator,
    "JOB": job,
    "GRANT_DEPTH": grant_depth,
    "GRANT_NUMBER": grant_number,
    "GRANT_IMAGES": grant_images,
    "GRANT_MESSAGES": grant_messages,
    "GRANT_LABELS": grant_labels,
    "GRANT_TERM": grant_term,
}
