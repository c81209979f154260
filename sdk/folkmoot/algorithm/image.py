"""Images as text: `registry.example.org/team/name@sha256:…`, `local:sha256:…`, `process:package.module`."""

import re

from folkmoot.algorithm.source import tree_hash
from folkmoot.v1.task_pb2 import Image, LocalImage, ProcessImage, RegistryImage

_DIGEST = r"sha256:[0-9a-f]{64}"
_REGISTRY = re.compile(rf"(?P<repository>[a-z0-9][a-z0-9._:-]*(?:/[a-z0-9._-]+)+)@(?P<digest>{_DIGEST})")
_LOCAL = re.compile(rf"local:(?P<id>{_DIGEST})")
_PROCESS = re.compile(r"process:(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def parse_image(text: str) -> Image:
    """Return the image that a text names; a module's source is hashed as it lies here. ValueError says what is wrong."""
    if registry := _REGISTRY.fullmatch(text):
        return Image(registry=RegistryImage(repository=registry["repository"], digest=registry["digest"]))
    if local := _LOCAL.fullmatch(text):
        return Image(local=LocalImage(id=local["id"]))
    if process := _PROCESS.fullmatch(text):
        return Image(process=ProcessImage(module=process["module"], tree_hash=tree_hash(process["module"])))
    raise ValueError(
        f"{text!r} does not pin an image: write repository@sha256:<64 hexadecimal digits>, local:sha256:<the same> or "
        "process:<package.module>"
    )


def image_text(image: Image) -> str:
    """Return an image as text."""
    match image.WhichOneof("source"):
        case "registry":
            return f"{image.registry.repository}@{image.registry.digest}"
        case "local":
            return f"local:{image.local.id}"
        case "process":
            return f"process:{image.process.module}"
        case _:
            return ""
