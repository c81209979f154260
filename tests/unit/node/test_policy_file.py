"""policy.toml is read strictly, and as a whole: what can't be is refused with the file, the key, and what is allowed."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from folkmoot.node.policy.policy_file import PolicyFile, PolicyLimits, load_policy
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

RULE = '[[allow]]\nimages = ["local:*"]\ninitiators = ["Alpha"]\n'


def public_key() -> bytes:
    return generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "acme.pub").write_bytes(public_key())
    (tmp_path / "no.pub").write_text("no key")
    return tmp_path / "policy.toml"


def test_everything_that_a_policy_may_say(path: Path):
    path.write_text(
        """
        runtimes = ["container", "process"]
        approval = "first_use"
        release = "held"
        voted_list = "required"
        opening_hours = ["Mon-Fri 08:00-18:00", "Sat 22:00-04:00"]
        time_zone = "Europe/Berlin"
        minimum_rows = 10
        [[allow]]
        images = ["registry.example.org/x@sha256:*"]
        signers = ["acme"]
        initiators = ["Alpha"]
        users = ["Alpha/anna"]
        functions = ["mean"]
        labels = ["patients"]
        subtasks = true
        messages = true
        resource_classes = ["large"]
        approval = "every_run"
        release = "held"
        minimum_rows = 20
        [limits]
        memory_bytes = 2147483648
        pids = 64
        [resource_classes.large]
        gpus = 1
        [quotas]
        runs_per_day = 10
        bytes_out_per_day = 1000000
        [signers]
        acme = "acme.pub"
        """
    )
    loaded = load_policy(path)
    policy = loaded.policy
    assert policy.limits == PolicyLimits(memory_bytes=2 << 30, pids=64)
    assert policy.resource_classes == {"large": PolicyLimits(memory_bytes=2 << 30, pids=64, gpus=1)}
    assert policy.signers == {"acme": path.parent / "acme.pub"}
    assert list(loaded.signer_keys) == ["acme"]
    assert (len(policy.hours), policy.zone.key) == (2, "Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('runtimes = ["vm"]', "runtimes is 'vm'; allowed are container, process"),
        ("approvals = 1", "approvals is not known; known are runtimes"),
        ('approval = "always"', "approval is 'always'; allowed are never, first_use, every_run"),
        ('release = "never"', "release is 'never'; allowed are automatic, held"),
        ('voted_list = "yes"', "voted_list is 'yes'; allowed are not required, required"),
        ("voted_list = true", "voted_list must be a text"),
        (
            'opening_hours = ["always"]',
            "opening_hours[0] is 'always'; write days and times, such as 'Mon-Fri 08:00-18:00'",
        ),
        ('time_zone = "Berlin"', "time_zone is 'Berlin', which is no time zone; write one as Europe/Berlin"),
        ("minimum_rows = -1", "minimum_rows is -1; at least 0 is allowed"),
        (f"minimum_rows = {1 << 32}", f"at most {(1 << 32) - 1} is allowed"),
        ("[[allow]]\nimages = []", "allow[0].initiators is missing"),
        ("[allow]\nimages = []", "allow must be a list"),
        (RULE + "subtasks = 1", "allow[0].subtasks must be true or false"),
        (RULE + 'approval = "on"', "allow[0].approval is 'on'; allowed are never"),
        (RULE + 'signers = ["acme"]', "allow[0].signers names 'acme'; [signers] has nothing"),
        (
            RULE + 'resource_classes = ["x"]\n[resource_classes.y]',
            "allow[0].resource_classes names 'x'; [resource_classes] has y",
        ),
        ("[limits]\nmemory = 1", "limits.memory is not known"),
        ("[limits]\ncpu_millis = 1", "limits.cpu_millis is 1; at least 10 is allowed"),
        ("[limits]\nmemory_bytes = 99999999999999999999", "limits.memory_bytes is 99999999999999999999; at most"),
        ("[limits]\nrun_time_seconds = 1e3", "limits.run_time_seconds must be a whole number"),
        ("[resource_classes]\nlarge = 1", "resource_classes.large must be a table"),
        ("[resource_classes.large]\ngpu = 1", "resource_classes.large.gpu is not known"),
        ("[quotas]\nruns_per_day = -1", "quotas.runs_per_day is -1; at least 0"),
        ('[signers]\nacme = "missing.pub"', "missing.pub, which does not exist"),
        ('[signers]\nacme = "."', "which can't be read"),
        ('[signers]\nacme = "no.pub"', "no.pub, which"),
        ("[signers]\nacme = 1", "signers.acme must be a text"),
        ("= 1", "can't be read"),
    ],
)
def test_what_can_not_be_is_refused_with_file_and_key(path: Path, text: str, told: str):
    path.write_text(text)
    with pytest.raises(FolkmootError) as refusal:
        load_policy(path)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_INVALID_FIELD
    assert told in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_policy_that_is_no_text_or_not_there_is_refused(path: Path):
    with pytest.raises(FolkmootError, match="does not exist"):
        load_policy(path)
    path.write_bytes(b"\xff")
    with pytest.raises(FolkmootError, match="can't be read"):
        load_policy(path)


def test_the_digest_covers_the_key_files(path: Path):
    path.write_text(RULE)
    assert load_policy(path).digest == hashlib.sha256(path.read_bytes()).digest()
    path.write_text('[signers]\nb = "b.pub"\nacme = "acme.pub"\n')
    (path.parent / "b.pub").write_bytes(public_key())
    before = load_policy(path).digest
    files = (path, path.parent / "acme.pub", path.parent / "b.pub")
    digests = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    assert before == hashlib.sha256(digests).digest()
    (path.parent / "acme.pub").write_bytes(public_key())
    assert load_policy(path).digest != before


def test_a_file_that_can_not_be_read_leaves_what_was_in_force(path: Path):
    path.write_text(RULE + 'signers = ["acme"]\n[signers]\nacme = "acme.pub"\n')
    file = PolicyFile(path)
    policy, digest, keys = file.policy, file.digest, file.signer_keys
    (path.parent / "acme.pub").unlink()
    with pytest.raises(FolkmootError):
        file.reload()
    assert (file.policy, file.digest, file.signer_keys) == (policy, digest, keys)
