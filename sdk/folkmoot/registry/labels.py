"""What an image says of itself: the labels of its configuration, which the registry holds beside its layers."""

import json
from collections.abc import Mapping
from typing import Any

from folkmoot.registry.api import Registry
from folkmoot.registry.errors import RegistryAltered

CONFIGURATION_BYTES = 4 << 20
"""More than any engine writes: history and labels of an image are text."""


def image_labels(registry: Registry, digest: str) -> Mapping[str, str]:
    """The labels of the image with that digest, verified by digests all the way; of one for several platforms, those of the first.

    Raises the errors of `folkmoot.registry.errors`; RegistryAltered also for an image without a configuration.
    """
    name = f"{registry.repository}@{digest}"
    manifest = registry.manifest(digest)
    try:
        if "manifests" in manifest:
            manifest = registry.manifest(str(manifest["manifests"][0]["digest"]))
        content = registry.blob(str(manifest["config"]["digest"]), most_bytes=CONFIGURATION_BYTES)
        labels: Any = (json.loads(content).get("config") or {}).get("Labels") or {}
        return {str(key): str(value) for key, value in labels.items()}
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
        raise RegistryAltered(name, "it has no configuration that can be read") from None
