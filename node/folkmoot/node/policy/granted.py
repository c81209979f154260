"""What an algorithm asks for a subtask, as the signed task above calls it.

A spec is signed and not sealed, and no record of egress counts it: what an algorithm calls an image must not leave in it.
"""

from collections.abc import Iterable

from folkmoot.algorithm.image import image_text
from folkmoot.v1.task_pb2 import Grant, Image, TaskSpec


def as_granted(images: Iterable[Image], parent: TaskSpec) -> list[Image]:
    """Images, each once, as the task above calls them. One that it does not name stays as it is, and is refused with the subtask."""
    called = {_identity(each): each for each in (*parent.grant.images, parent.image)}
    return [called.get(identity, each) for identity, each in {_identity(each): each for each in images}.items()]


def bare_grant(grant: Grant, parent: TaskSpec) -> Grant:
    """A grant whose images are called as the task above calls them."""
    bare = Grant.FromString(grant.SerializeToString())
    del bare.images[:]
    bare.images.extend(as_granted(grant.images, parent))
    return bare


def _identity(image: Image) -> tuple[str, bytes]:
    return image_text(image), image.process.tree_hash
