"""What `folkmoot.trust` offers is all that others may use, and nothing of it goes away unnoticed."""

import folkmoot.trust

EXPORTED = """
BytesSource DecryptionKey EncryptionDisagrees EnvelopeRejected Expected FileSource FingerprintMissing FolkmootError Inspected
InvitationInvalid KeyMismatch KeyUnpublished KeyUse LedgerBehind LedgerEntryInvalid LedgerFork LedgerHeadMoved LedgerStale
LedgerUpgradeNeeded Malformed
Member Node NodeNotApproved Opened OrganizationKey OrganizationNotFound Position ProofInvalid Receiver Reference Request RsaKey
Sealed Sealing SignatureInvalid SigningKey Source State TaskAheadOfLedger TaskExpired TaskNotProven Terms
Stretching TrustError VaultDamaged VaultOfAnotherOrganization VaultSecret VaultSecretWeak VaultSecretWrong VaultedKeyNotFound
VerifiedTask WrongCollaboration XWingKey
digest dump_invitation dump_organization_key dump_signing_key fingerprint fingerprint_words found inspect key_id
load_invitation load_organization_key load_signing_key make_authentication make_entry make_invitation
make_join_request make_node_claim node_approve_entry open_envelope open_vaulted_key pae parse
parse_fingerprint read_authentication read_invitation read_vaulted_head read_vaulted_key replay rewrap_vaulted_key seal seal_bytes seal_vaulted_key serialize
sign sign_receipt sign_subtask sign_task timestamp uuid7 verify
verify_authentication verify_invitation verify_join_request verify_receipt verify_refusal verify_task vote_entry word_list wrap
"""


def test_public_names_are_these():
    assert sorted(folkmoot.trust.__all__) == sorted(EXPORTED.split())


def test_every_public_name_is_there_and_says_what_it_is():
    for name in EXPORTED.split():
        assert getattr(folkmoot.trust, name).__doc__, name
