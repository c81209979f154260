"""What a station keeps of images' signatures, and that it need not trust what it keeps."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot.node.execution import patience
from folkmoot.node.execution.patience import while_unreachable
from folkmoot.node.policy import signatures as module
from folkmoot.node.policy.signatures import ImageSignatures
from folkmoot.registry import ImageSignature, LoginRefused, RegistryUnreachable, SignerKey
from folkmoot.registry.signatures import make_signature
from folkmoot.trust import FolkmootError
from folkmoot.v1.task_pb2 import Image, LocalImage, RegistryImage

DIGEST = "sha256:" + "1" * 64
IMAGE = Image(registry=RegistryImage(repository="127.0.0.1:5000/team/name", digest=DIGEST))
ACME, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

Kept = Callable[..., ImageSignatures]


def silent(_: str) -> None:
    pass


@pytest.fixture
def keys() -> dict[str, SignerKey]:
    return {"acme": ACME.public_key()}


@pytest.fixture
def kept(tmp_path: Path, keys: dict[str, SignerKey], monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Make the station's signatures; a registry gives those that the test says, or raises."""

    def make(*in_registry: Ed25519PrivateKey, error: FolkmootError | None = None) -> ImageSignatures:
        def fetch(_: object, digest: str) -> tuple[ImageSignature, ...]:
            if error:
                raise error
            return tuple(make_signature("name", digest, key) for key in in_registry)

        monkeypatch.setattr(module, "fetch_signatures", fetch)
        return ImageSignatures(tmp_path, keys=lambda: keys, login_file=None, patience_seconds=0)

    return make


async def test_signatures_are_kept_over_a_restart(kept: Kept):
    first = kept(ACME, OTHER)
    assert first.signers(IMAGE) == frozenset()
    await first.look_up(IMAGE, silent)
    assert first.signers(IMAGE) == kept().signers(IMAGE) == {"acme"}


async def test_kept_signatures_are_judged_by_the_keys_of_today(kept: Kept, keys: dict[str, SignerKey]):
    here = kept(ACME)
    await here.look_up(IMAGE, silent)
    del keys["acme"]
    assert here.signers(IMAGE) == frozenset()


async def test_signatures_of_strangers_fill_no_disk(kept: Kept, tmp_path: Path):
    await kept(OTHER).look_up(IMAGE, silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"[[", b"{}", b"1", b"[[1, 2]]", b'[["AA=="]]', b'[["AA==", "AA=="]]'])
async def test_who_writes_into_the_folder_makes_nobody_a_signer(kept: Kept, tmp_path: Path, content: bytes):
    here = kept(ACME)
    await here.look_up(IMAGE, silent)
    [file] = (tmp_path / "image-signatures").iterdir()
    file.write_bytes(content)
    assert here.signers(IMAGE) == frozenset()
    await here.look_up(IMAGE, silent)
    assert here.signers(IMAGE) == {"acme"}


async def test_only_images_in_registries_are_looked_up(kept: Kept):
    here = kept(error=RegistryUnreachable("host", "asked"))
    local = Image(local=LocalImage(id=DIGEST))
    await here.look_up(local, silent)
    assert here.signers(local) == frozenset()


async def test_registry_that_is_down_is_the_reason_when_patience_ends(kept: Kept):
    with pytest.raises(RegistryUnreachable):
        await kept(error=RegistryUnreachable("host", "down")).look_up(IMAGE, silent)


async def test_patience_is_for_what_may_pass_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    told, answers = list[str](), [RegistryUnreachable("host", "down")] * 3

    async def attempt() -> str:
        if answers:
            raise answers.pop()
        return "here"

    assert await while_unreachable(attempt, patience_seconds=50, tell=told.append) == "here"
    assert told[0].endswith("tried once")
    assert told[-1].endswith("tried 3 times")

    async def refused() -> None:
        raise LoginRefused("host", login_given=True)

    with pytest.raises(LoginRefused):
        await asyncio.wait_for(while_unreachable(refused, patience_seconds=50, tell=silent), 50)
