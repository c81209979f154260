"""What `folkmoot.trust` offers is all that others may use, and nothing of it goes away unnoticed."""

import folkmoot.trust

EXPORTED = """
ArrivingBody BytesSource DecryptionKey EncryptionDisagrees EntryNotPossible EnvelopeRejected Expected FileSource
FingerprintMissing FolkmootError
Head Inspected InvitationInvalid KeyEnding KeyMismatch KeyTerm KeyUnpublished KeyUse LedgerBehind LedgerEntryInvalid
LedgerFork LedgerHeadMoved LedgerStale LedgerUpgradeNeeded Malformed Member Membership Node NodeNotApproved Opened
OrganizationKey OrganizationNotFound Position Predecessor ProofInvalid Proposal Receiver Reference Removal Request
RsaKey Sealed Sealing SignatureInvalid SigningKey Source State Stretching TaskAheadOfLedger TaskExpired TaskNotProven
Terms TrustError VaultDamaged VaultOfAnotherOrganization VaultSecret VaultSecretWeak VaultSecretWrong
VaultedKeyNotFound VerifiedTask WrongCollaboration XWingKey
algorithm_propose_entry algorithm_revoke_entry algorithm_vote_entry digest dump_invitation dump_organization_key
dump_signing_key fingerprint fingerprint_words found inspect key_id leave_entry load_invitation load_organization_key
load_signing_key make_approval make_authentication make_entry make_head_statement make_invitation make_join_request make_node_claim
node_approve_entry node_revoke_entry open_envelope open_vaulted_key pae parse parse_fingerprint publish_key_entry
read_authentication read_head read_invitation read_vaulted_head read_vaulted_key replay request_removal_entry
revoke_key_entry rewrap_vaulted_key rotate_key_entry seal seal_bytes seal_vaulted_key serialize sign sign_check sign_of_life
sign_receipt sign_subtask sign_task timestamp uuid7 verify verify_approval verify_authentication verify_invitation verify_join_request
verify_check verify_receipt verify_refusal verify_task vote_entry vote_removal_entry word_list wrap
MemberProof NodeProof Place ProvenLedger RunProof TaskProof VerifiedProof make_proof verify_proof
"""


def test_public_names_are_these():
    assert sorted(folkmoot.trust.__all__) == sorted(EXPORTED.split())


def test_every_public_name_is_there_and_says_what_it_is():
    for name in EXPORTED.split():
        assert getattr(folkmoot.trust, name).__doc__, name
