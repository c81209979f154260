"""Images: which one an engine has, and what it says of itself."""

import json
from collections.abc import Mapping

from folkmoot.algorithm.describe import FUNCTIONS_LABEL
from folkmoot.algorithm.image import image_text
from folkmoot.registry import Repository
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Image


def engine_name(image: Image) -> str | None:
    """Return how an engine names an image without any tag; None if an engine can't have it."""
    match image.WhichOneof("source"):
        case "local":
            return image.local.id
        case "registry":
            return f"{Repository.parse(image.registry.repository)}@{image.registry.digest}"
        case _:
            return None


def is_the_image(image: Image, found_id: str, found_digests: list[str]) -> bool:
    """Whether what an engine found is what was asked for; an engine that resolves names otherwise must not decide."""
    wanted = engine_name(image)
    if image.HasField("local"):
        return wanted == found_id
    return any(wanted == _as_docker_lists(each) for each in found_digests)


def _as_docker_lists(pinned: str) -> str:
    """Repository and digest as Docker lists them; other engines keep Docker Hub's name."""
    repository, _, digest = pinned.partition("@")
    return f"{Repository.parse(repository)}@{digest}"


def functions_of(labels: Mapping[str, str] | None) -> tuple[str, ...] | None:
    """Return the functions that an image says it has; None if it does not say, or not in this form."""
    try:
        return tuple(str(function["name"]) for function in json.loads((labels or {})[FUNCTIONS_LABEL]))
    except (KeyError, RecursionError, TypeError, ValueError):
        return None


def image_not_found(image: Image, why: str) -> FolkmootError:
    """The error for an image that can't be started here."""
    return FolkmootError(ErrorReason.ERROR_REASON_IMAGE_NOT_FOUND, f"{image_text(image) or 'the image'}: {why}")


def image_altered(image: Image, why: str) -> FolkmootError:
    """The error for an image that is not what its digest names."""
    return FolkmootError(ErrorReason.ERROR_REASON_IMAGE_ALTERED, f"{image_text(image)}: {why}")
