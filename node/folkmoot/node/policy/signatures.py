"""Who has signed an image: looked up in its registry when that matters, and kept here, so that a registry's outage stops nothing that is here.

What is kept is the signatures themselves. They are verified anew at each question, with the keys that the policy names then: nobody has to
trust the folder, and a signer who has left the policy counts no more.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from folkmoot.node.execution.patience import Tell, while_unreachable
from folkmoot.node.threads import in_thread
from folkmoot.registry import ImageSignature, Registry, Repository, SignerKey, find_login, signers_of
from folkmoot.registry.signatures import fetch_signatures
from folkmoot.v1.task_pb2 import Image

FOLDER = "image-signatures"

log = structlog.get_logger()


class ImageSignatures:
    """The signatures of the images that a station has met. Only images in registries have any."""

    def __init__(
        self,
        directory: Path,
        *,
        keys: Callable[[], Mapping[str, SignerKey]],
        login_file: Path | None,
        patience_seconds: float,
    ) -> None:
        self._folder = directory / FOLDER
        self._keys = keys
        self._login_file = login_file
        self._patience_seconds = patience_seconds

    def signers(self, image: Image) -> frozenset[str]:
        """Names of the policy's signers whose signatures for an image are here; asks no registry."""
        digest = image.registry.digest
        return signers_of(digest, self._kept(digest), self._keys()) if digest else frozenset()

    async def look_up(self, image: Image, tell: Tell) -> None:
        """Look for an image's signatures in its registry, and keep those of the policy's signers. Raises the errors of registries."""
        if not image.HasField("registry"):
            return
        digest, repository = image.registry.digest, Repository.parse(image.registry.repository)

        def fetch() -> tuple[ImageSignature, ...]:
            return fetch_signatures(Registry(repository, find_login(self._login_file, repository.host)), digest)

        found = await while_unreachable(
            lambda: in_thread(fetch, name="registry"), patience_seconds=self._patience_seconds, tell=tell
        )
        keys = self._keys()
        counting = [one for one in found if signers_of(digest, [one], keys)]
        log.info("image.signatures", image=f"{repository}@{digest}", found=len(found), signers=len(counting))
        if counting:
            self._keep(digest, counting)

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.json"

    def _kept(self, digest: str) -> list[ImageSignature]:
        try:
            content = json.loads(self._file(digest).read_bytes())
            return [ImageSignature(*(base64.b64decode(part) for part in pair)) for pair in content]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):  # Half a file, after a power cut: it is looked up again.
            return []

    def _keep(self, digest: str, signatures: list[ImageSignature]) -> None:
        pairs = [[base64.b64encode(part).decode() for part in (one.payload, one.signature)] for one in signatures]
        self._folder.mkdir(exist_ok=True)
        coming = self._file(digest).with_suffix(".new")
        coming.write_text(json.dumps(pairs))
        coming.replace(self._file(digest))
