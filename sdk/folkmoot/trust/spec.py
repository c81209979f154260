"""What a task's spec must be by itself, and beside the spec of the task above it. The checks raise RuleBroken."""

import re
from collections.abc import Collection, Iterable

from folkmoot.trust.encoding import DIGEST_BYTES, NAME_PATTERN, is_uuid, parse
from folkmoot.trust.rules import LONGEST_REFERENCE_BYTES, LONGEST_TASK, RuleBroken, TaskRule, require, under
from folkmoot.trust.times import in_nanoseconds, nanoseconds
from folkmoot.v1.task_pb2 import Image, MessageGrant, Scratch, SessionUse, TaskSpec

LONGEST_CLASS_BYTES = 63
LONGEST_IMAGE_BYTES = 255

_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"(?:[A-Za-z0-9.-]+(?::[0-9]{{1,5}})?/)?{_PATH}(?:/{_PATH})*")
_IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


def read_spec(body: bytes) -> TaskSpec:
    """Return a spec; what is checked is its form, and that times are times."""
    with under(TaskRule.FORM):
        spec = parse(TaskSpec, body)
        nanoseconds(spec.created_at)
        nanoseconds(spec.expires_at)
    require(spec.scratch in Scratch.values() and spec.grant.messages in MessageGrant.values(), TaskRule.FORM)
    return spec


def check_spec(spec: TaskSpec, *, only_asks: bool = False) -> None:
    """Check all that can be seen in a spec without a ledger and without the specs above it.

    `only_asks`: it is no task but the question whether it would be accepted, and expires when it is made.
    """
    position = spec.ledger_position
    require(len(position.hash) == DIGEST_BYTES, TaskRule.LEDGER_POSITION)
    require(is_uuid(spec.task_id) and is_uuid(spec.job_id), TaskRule.ID)
    require(len(spec.initiator.user_id.encode()) <= LONGEST_REFERENCE_BYTES, TaskRule.USER)
    check_image(spec.image)
    _check_receivers(spec)
    _check_inputs(spec)
    _check_dependencies(spec)
    require(_are_different(spec.labels), TaskRule.LABELS)
    require(all(0 < len(label.encode()) <= LONGEST_REFERENCE_BYTES for label in spec.labels), TaskRule.LABELS)
    if spec.HasField("session"):
        _check_session(spec.session, spec.labels)
    _check_resources(spec)
    require(spec.max_attempts >= 1, TaskRule.MAX_ATTEMPTS)
    _check_term(spec, only_asks=only_asks)
    for image in spec.grant.images:
        check_image(image)


def attempts_allowed(spec: TaskSpec) -> int:
    """Return how often a run may be tried: once where another attempt would lack what the first one left or was told.

    Files and dataframes that were left at one node can't be had at another. Messages are counted per pair of runs: siblings have
    had the first attempt's, and its own are gone with it.
    """
    messages = spec.grant.messages == MessageGrant.MESSAGE_GRANT_SIBLINGS
    alone = spec.scratch == Scratch.SCRATCH_JOB or messages or spec.HasField("session")
    return 1 if alone else spec.max_attempts


def check_image(image: Image) -> None:
    """Check that an image is named so that nobody can put another in its place."""
    match image.WhichOneof("source"):
        case "registry":
            require(_matches(_REPOSITORY, image.registry.repository), TaskRule.IMAGE)
            require(_matches(_IMAGE_DIGEST, image.registry.digest), TaskRule.IMAGE)
        case "local":
            require(_matches(_IMAGE_DIGEST, image.local.id), TaskRule.IMAGE)
            require(len(image.local.name.encode()) <= LONGEST_IMAGE_BYTES, TaskRule.IMAGE)
        case "process":
            require(_matches(_MODULE, image.process.module), TaskRule.IMAGE)
            require(len(image.process.tree_hash) == DIGEST_BYTES, TaskRule.IMAGE)
        case _:
            raise RuleBroken(TaskRule.IMAGE)


def check_within(spec: TaskSpec, parent: TaskSpec) -> None:
    """Check that a subtask lies within what its parent is granted."""
    require(spec.job_id == parent.job_id, TaskRule.JOB)
    require(spec.grant.subtask_depth < parent.grant.subtask_depth, TaskRule.GRANT_DEPTH)
    require(max(1, spec.grant.subtask_number) <= parent.grant.subtask_number, TaskRule.GRANT_NUMBER)
    granted = _identities([parent.image, *parent.grant.images])
    require(_identities([spec.image, *spec.grant.images]) <= granted, TaskRule.GRANT_IMAGES)
    require(
        spec.grant.messages in (MessageGrant.MESSAGE_GRANT_UNSPECIFIED, parent.grant.messages), TaskRule.GRANT_MESSAGES
    )
    require(set(spec.labels) <= set(parent.labels), TaskRule.GRANT_LABELS)
    require(nanoseconds(spec.expires_at) <= nanoseconds(parent.expires_at), TaskRule.GRANT_TERM)
    if spec.HasField("session"):
        _check_session_within(spec.session, parent.session)


def _check_session(session: SessionUse, labels: Iterable[str]) -> None:
    """Check that dataframes are named so that a name says which table is meant: no label, and no path either."""
    require(is_uuid(session.session_id) and bool(session.dataframes or session.leaves), TaskRule.SESSION)
    names = {*session.dataframes, session.leaves} - {""}
    require(all(map(NAME_PATTERN.fullmatch, (*session.dataframes, *names))), TaskRule.SESSION)
    require(_are_different(session.dataframes) and names.isdisjoint(labels), TaskRule.SESSION)


def _check_session_within(session: SessionUse, parent: SessionUse) -> None:
    """Check a subtask's use of a session; a parent that uses none names none."""
    require(session.session_id == parent.session_id, TaskRule.GRANT_SESSION)
    require(set(session.dataframes) <= {*parent.dataframes, parent.leaves}, TaskRule.GRANT_SESSION)
    require(session.leaves in ("", parent.leaves), TaskRule.GRANT_SESSION)


def _check_term(spec: TaskSpec, *, only_asks: bool) -> None:
    term = nanoseconds(spec.expires_at) - nanoseconds(spec.created_at)
    if only_asks and term:
        raise RuleBroken(TaskRule.TERM, "what only asks expires at the moment when it is made")
    require(only_asks or 0 < term <= in_nanoseconds(LONGEST_TASK), TaskRule.TERM)


def _check_receivers(spec: TaskSpec) -> None:
    organizations = [each.organization_id for each in spec.receivers]
    runs = [each.run_id for each in spec.receivers]
    require(bool(organizations) and _are_different(organizations), TaskRule.RECEIVERS)
    require(all(map(is_uuid, runs)) and _are_different(runs), TaskRule.ID)
    require(bool(spec.result_receivers) and _are_different(spec.result_receivers), TaskRule.RESULT_RECEIVERS)


def _check_inputs(spec: TaskSpec) -> None:
    """Check that each receiver has one input. One that names nobody is for everybody, and then the only one."""
    require(all(len(each.envelope_digest) == DIGEST_BYTES and each.size_bytes for each in spec.inputs), TaskRule.INPUTS)
    if len(spec.inputs) == 1 and not spec.inputs[0].organization_ids:
        return
    require(all(each.organization_ids for each in spec.inputs), TaskRule.INPUTS)
    covered = sorted(organization for each in spec.inputs for organization in each.organization_ids)
    require(covered == sorted(each.organization_id for each in spec.receivers), TaskRule.INPUTS)


def _check_dependencies(spec: TaskSpec) -> None:
    tasks = [each.task_id for each in spec.depends_on]
    require(_are_different(tasks), TaskRule.DEPENDENCIES)
    for each in spec.depends_on:
        require(is_uuid(each.task_id) and len(each.task_digest) == DIGEST_BYTES, TaskRule.DEPENDENCIES)


def _check_resources(spec: TaskSpec) -> None:
    require(len(spec.resources.resource_class.encode()) <= LONGEST_CLASS_BYTES, TaskRule.RESOURCES)
    if spec.resources.HasField("run_time"):
        run_time = spec.resources.run_time
        require(run_time.seconds >= 0 and 0 <= run_time.nanos < 1_000_000_000, TaskRule.RESOURCES)
        require(bool(run_time.seconds or run_time.nanos), TaskRule.RESOURCES)


def _identities(images: Iterable[Image]) -> set[tuple[str | bytes, ...]]:
    """Return what makes images the same one; what a local image was called doesn't."""
    return {_identity(image) for image in images}


def _identity(image: Image) -> tuple[str | bytes, ...]:
    match image.WhichOneof("source"):
        case "registry":
            return "registry", image.registry.repository, image.registry.digest
        case "local":
            return "local", image.local.id
        case "process":
            return "process", image.process.module, image.process.tree_hash
        case _:
            return ()


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    return len(text) <= LONGEST_IMAGE_BYTES and pattern.fullmatch(text) is not None


def _are_different(texts: Collection[str]) -> bool:
    return len(set(texts)) == len(texts)
