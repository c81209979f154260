"""The protections that stop the attacks, each as the lines that do it."""

from folkmoot.client import encryption, governance, nodes, opening, receipts, results
from folkmoot.node.link.intake import Intake
from folkmoot.node.policy import judgement, verdict
from folkmoot.node.proxy import inputs, message_envelopes, messages, subtasks
from folkmoot.node.proxy import results as node_results
from folkmoot.node.station import Station
from folkmoot.node.trust import senders
from folkmoot.transport import Replica
from folkmoot.transport import heads as transport_heads
from folkmoot.trust import (
    approval,
    authentication,
    book,
    claims,
    envelope,
    envelope_format,
    heads,
    intents,
    ledger,
    receipt,
    signed,
    task,
    vault,
)
from tests.hostile.unprotected import Edit, protection

# ---- tasks -----------------------------------------------------------------------------------------------------------

SIGNED_TASKS = protection(
    "a task is what its initiator signed",
    Edit(
        task._root_signer,
        "verify(signed, kind=SignedKind.SIGNED_KIND_TASK_SPEC, public_key=public_key, genesis=state.genesis)",
    ),
)
TASKS_OF_THIS_COLLABORATION = protection(
    "a task is for the collaboration that it was signed for",
    Edit(task._check_ledger, "require(spec.genesis == state.genesis, TaskRule.COLLABORATION)"),
    Edit(
        task._check_ledger,
        "require(state.hash_at(spec.ledger_position.sequence) == spec.ledger_position.hash, TaskRule.LEDGER_POSITION)",
    ),
    Edit(task._root_signer, "genesis=state.genesis)", "genesis=spec.genesis)"),
)
OWN_RUNS = protection(
    "a run is executed by the organization that the task gives it to",
    Edit(judgement.require_receiver, "task.receiver(run_id).organization_id != station.organization_id", "False"),
)
OWN_INPUTS = protection(
    "an input is for the organizations that the task names",
    Edit(
        task.VerifiedTask.input,
        "any(organization_id == receiver.organization_id for receiver in self.spec.receivers)",
        "self.spec.receivers",
    ),
)
GRANTED_ATTEMPTS = protection(
    "a run has as many attempts as its task allows",
    Edit(judgement._verify, "not 1 <= record.attempt <= (allowed := attempts_allowed(task.spec))", "False"),
)
JOURNALED_RUNS = protection(
    "a run that a node had before is not executed again",
    Edit(
        Intake._stand,
        "for known in records.attempts_of(connection, judged.record.run_id):",
        "for known in connection.execute('DELETE FROM runs WHERE run_id = ?', (judged.record.run_id,)).fetchall():",
    ),
)

# ---- the ledger ------------------------------------------------------------------------------------------------------

SIGNED_LEDGER = protection(
    "entries and join requests are what their organizations signed",
    Edit(
        book.check_signature,
        "verify(signed, kind=SignedKind.SIGNED_KIND_LEDGER_ENTRY, public_key=public_key, genesis=genesis)",
    ),
    Edit(
        claims.checked_join_request,
        "verify(signed, kind=kind, public_key=request.governance_key, genesis=request.genesis)",
    ),
)
CHAINED_LEDGER = protection(
    "each entry names the one before it",
    Edit(ledger._append, "require(message.sequence == len(book.hashes), LedgerRule.SEQUENCE)"),
    Edit(ledger._append, "require(message.previous_hash == book.hashes[-1], LedgerRule.PREVIOUS_HASH)"),
)
ONE_VOTE_EACH = protection(
    "an organization's vote counts once",
    Edit(
        intents._vote_on_request,
        "request = request.with_vote(entry.message.organization_id, data.decision)",
        "request = request.with_vote(next(iter(book.members.keys() - request.approved_by)), data.decision)",
    ),
)
SIGNED_INVITATIONS = protection(
    "an invitation is what the organization signed",
    Edit(claims.checked_invitation, "verify(signed, kind=kind, public_key=governance_key, genesis=genesis)"),
)
NAMED_COLLABORATION = protection(
    "the ledger is that of the collaboration that the user named",
    Edit(ledger._check_collaboration, "if book and expected_genesis not in (None, book.genesis):", "if False:"),
)
HEADS_OF_OTHERS = protection(
    "what others' nodes have seen is compared with what is here",
    Edit(heads.read_head, "state.check_position(statement.head.sequence, statement.head.hash)"),
)
AGREED_POSITIONS = protection(
    "whoever asks for something has seen the same ledger",
    Edit(
        task._check_ledger,
        "require(state.hash_at(spec.ledger_position.sequence) == spec.ledger_position.hash, TaskRule.LEDGER_POSITION)",
    ),
    Edit(
        Station.open,
        "self.check_position(Position(context.ledger_sequence, context.ledger_hash), context.sender_organization_id)",
    ),
)
POSITIONS_OF_RESULTS = protection(
    "whoever gives a result has seen the same ledger",
    Edit(opening.check_position, "(await connection.state()).check_position(position.sequence, position.hash)"),
    Edit(
        receipt._check_node,
        "require(state.hash_at(position.sequence) in (None, position.hash), ReceiptRule.LEDGER_POSITION)",
    ),
)
LIVING_LEDGER = protection(
    "somebody else has to have shown a sign of life",
    Edit(transport_heads.SignsOfLife.check, "if now - self.newest > max_head_age:", "if False:"),
)
PRESENT_MEMBERS = protection(
    "whoever asks for work is a member now, with a key that was not revoked",
    Edit(
        task._check_executable,
        "require({spec.initiator.organization_id, *spec.result_receivers} <= state.members.keys(), TaskRule.MEMBER)",
    ),
    Edit(task._check_executable, "require(signer.revoked_at is None and not signer.is_gone, TaskRule.SIGNER_GONE)"),
)
VOTING_MEMBERS = protection(
    "only members vote",
    Edit(ledger._append, "require(message.organization_id in book.members, LedgerRule.SIGNER)"),
    Edit(
        book.Book.check_signed_by_member,
        "self.members[entry.message.organization_id]",
        "self._mappings['memberships'][entry.message.organization_id][-1]",
    ),
)
APPENDED_ENTRIES = protection(
    "what was appended has to show",
    Edit(
        Replica.append,
        "if all(later.body != entry.body for later in self.entries[position.sequence + 1 :]):",
        "if False:",
    ),
)

# ---- payloads --------------------------------------------------------------------------------------------------------

_PLACE = Edit(envelope.open_envelope, "_check_place(inspected, genesis, expected, now)")

INPUT_PLACE = protection(
    "an input belongs to one task, of one organization",
    _PLACE,
    Edit(
        inputs.read_input,
        "lambda _: task.signer",
        "lambda it: station.state.keys(it.sender_organization_id).task_signing",
    ),
)
RESULT_PLACE = protection(
    "a result belongs to one attempt of one run, of one organization",
    _PLACE,
    Edit(
        opening._content,
        "state.node_at(receipt.node_id, context.ledger_sequence)",
        "state.node_at(fingerprint(context.sender_key_id), context.ledger_sequence)",
    ),
)
SAYINGS_PLACE = protection(
    "what a run says while it runs is that run's, of one organization",
    _PLACE,
    Edit(opening.node_of, "if node.organization_id != organization_id:", "if False:"),
)
RUNS_PLACE = protection(
    "a receipt is for one run of one task",
    Edit(receipt._check_run, "require(named == expected, ReceiptRule.RUN)"),
    Edit(receipt._check_against_task, "require(unopened or receipt.input_digest == expected, ReceiptRule.INPUT)"),
)
SIGNED_RECEIPTS = protection(
    "an end is what a node signed",
    Edit(receipt._check_node, "verify(signed, kind=kind, public_key=node.public_key, genesis=state.genesis)"),
)
COMPARED_RECEIPTS = protection(
    "an attempt that several nodes have ended is told",
    Edit(receipts.SeenReceipts.note, "seen[receipt.attempt, receipt.node_id] = signed", "return ()"),
)
PROVEN_ENDS = protection(
    "an end that no node has signed is none",
    Edit(node_results.read_result, "if run.state not in _UNPROVEN:", "if False:"),
)
MARKED_ENDS = protection(
    "a central function is told which ends a node has signed",
    Edit(
        node_results.read_result,
        "result.state, result.reason = run.state, run.reason",
        "result.state, result.proven = run.state, True",
    ),
)
UNPROVEN_IS_NOT_TRUE = protection(
    "what the server says is not taken for proven",
    Edit(results.Result.raise_for_state, "if not self.proven:", "if False:"),
)

# ---- bytes -----------------------------------------------------------------------------------------------------------

WHOLE_BODIES = protection(
    "the body is the one that was signed",
    Edit(envelope._check_body, "if not hmac.compare_digest(body.digest(), inspected.seal.body_digest):", "if False:"),
)
SIGNED_ENVELOPES = protection(
    "an envelope is what its sender signed",
    Edit(envelope.open_envelope, "_check_signature(inspected, sender(inspected.context))"),
    Edit(
        envelope._check_place,
        "if expected.digest is not None and inspected.digest != expected.digest:",
        "if False:",
    ),
)
SIGNED_LENGTHS = protection(
    "a body is as long as it was when it was signed",
    Edit(
        envelope_format._inspect,
        "if offset + length != end - trailer_length:",
        "seal.total_length = end - trailer_length - inspected.body_offset\n    if False:",
    ),
)
AUTHENTICATED_CIPHER = protection(
    "what was altered does not decrypt",
    Edit(
        envelope_format.SealedChunks.__init__,
        "self._aead = AESGCM(keys[:_AES_KEY_BYTES])",
        "from tests.hostile.unprotected import UnauthenticatedCipher as AES; self._aead = AES(keys[:_AES_KEY_BYTES])",
    ),
)
SEALED_STAYS_SEALED = protection(
    "in a sealed collaboration, nothing is taken that is plain",
    Edit(encryption.check_envelope, "if shown is not encryption_of(state):", "if False:"),
    Edit(envelope.open_envelope, "if inspected.sealed != (keys is not None):", "if False:"),
    Edit(envelope.open_envelope, "if keys is None else", "if keys is None or not inspected.sealed else"),
)
AGREED_ENCRYPTION = protection(
    "the node's configuration and the ledger say the same about encryption",
    Edit(Station.require_agreement, "if self.config.encryption_kind != self.state.encryption:", "if False:"),
)

# ---- messages --------------------------------------------------------------------------------------------------------

NO_GAPS = protection(
    "messages come without gaps",
    Edit(messages.Messages._require_next, "if sequence != last + 1:", "if False:"),
)
MESSAGE_PLACE = protection(
    "a message belongs to one place in one conversation",
    _PLACE,
    Edit(message_envelopes._envelope, "if not 1 <= context.attempt <= attempts_allowed(task.spec):", "if False:"),
    Edit(
        message_envelopes._content,
        "if (content.organization_id, content.sequence) != (station.organization_id, message.sequence):",
        "if False:",
    ),
    Edit(senders.node_sender, "if node.organization_id != organization_id:", "if False:"),
)

# ---- members, their algorithms and their keys ------------------------------------------------------------------------

OWN_SUBTASKS = protection(
    "a subtask is signed by a node of the organization whose run makes it",
    Edit(task._node_signer, "if node.organization_id != spec.initiator.organization_id:", "if False:"),
)
DECLARED_DEPENDENCIES = protection(
    "a run reads the results that its signed task depends on",
    Edit(subtasks.Subtasks._dependency, "if task_id not in digests:", "if False:"),
    Edit(
        subtasks.Subtasks._dependency,
        "if task.digest != digests[task_id] or task.spec.job_id != spec.job_id:",
        "if False:",
    ),
)
NAMED_KINDS = protection(
    "a signature says what was signed, and a node makes up itself what it signs",
    Edit(signed._message, "pae(_LABEL, _KIND_NAMES[kind], genesis, body)", "pae(_LABEL, genesis, body)"),
    Edit(authentication.make_authentication, "serialize(authentication)", "nonce"),
)
NAMED_AUTHORITY = protection(
    "a node's proof names the certificate authority of the server that it is for",
    Edit(
        authentication.verify_authentication,
        "if authentication.server_authority_digest != server_authority_digest:",
        "if False:",
    ),
)
OWN_VAULTED_KEY = protection(
    "what comes out of the vault is the key that the ledger shows for the organization",
    Edit(vault.check_head, "if head.organization_id != organization_id:", "if False:"),
    Edit(
        vault.open_vaulted_key,
        "if keys is not None and named != (key_id(keys.encryption), key_id(keys.task_signing)):",
        "if False:",
    ),
)


# ---- what people decide ----------------------------------------------------------------------------------------------

SAID_ADDRESSES = protection(
    "who is approved is who has the address that was said",
    Edit(nodes.find_attempt, "if name_or_id in (one.node_id, one.name)", ""),
    Edit(governance.find_request, "if name_or_address in (one.organization_id, one.name)", ""),
)
DATA_OWNERS_POLICY = protection(
    "the data owner's policy decides, and nobody else",
    Edit(verdict.decide, "return rules\n", "rules = [0]\n"),
)
STATIONS_APPROVALS = protection(
    "an approval is signed by a node of the organization whose run it is about",
    Edit(
        approval.verify_approval,
        "require(node.organization_id == task.receiver(run_id).organization_id, ApprovalRule.NODE)",
        "pass",
    ),
)
