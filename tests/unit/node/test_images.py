"""Which image is the one that a task pins."""

import json

import pytest

from folkmoot.algorithm.describe import FUNCTIONS_LABEL
from folkmoot.node.execution.images import engine_name, functions_of, is_the_image
from folkmoot.v1.task_pb2 import Image, LocalImage, ProcessImage, RegistryImage

ID = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
LOCAL = Image(local=LocalImage(id=ID, name="a name is for people only"))
HUB = Image(registry=RegistryImage(repository="docker.io/library/python", digest=ID))
REGISTRY = Image(registry=RegistryImage(repository="registry.example.org/a/b", digest=ID))


def test_engine_is_asked_without_tags():
    assert engine_name(LOCAL) == ID
    assert engine_name(REGISTRY) == f"registry.example.org/a/b@{ID}"
    assert engine_name(HUB) == f"python@{ID}"
    assert engine_name(Image(process=ProcessImage(module="os"))) is None
    assert engine_name(Image()) is None


@pytest.mark.parametrize(
    ("image", "found_id", "digests", "same"),
    [
        (LOCAL, ID, [], True),
        (LOCAL, OTHER, [ID], False),
        (REGISTRY, OTHER, [f"registry.example.org/a/b@{ID}"], True),
        (HUB, OTHER, [f"python@{ID}"], True),
        (HUB, OTHER, [f"docker.io/library/python@{ID}"], True),
        (HUB, OTHER, [f"registry.example.org/library/python@{ID}"], False),
        (REGISTRY, ID, [], False),
        (REGISTRY, ID, [f"registry.example.org/a/c@{ID}", f"registry.example.org/a/b@{OTHER}"], False),
    ],
)
def test_only_the_pinned_image_is_the_image(image, found_id, digests, same):
    assert is_the_image(image, found_id, digests) is same


@pytest.mark.parametrize("label", [None, "", "no JSON", "{}", "1", "[1]", '[{"kind": "central"}]', "[" * 100_000])
def test_image_that_does_not_say_its_functions_in_this_form_does_not_say(label):
    found = functions_of(None if label is None else {FUNCTIONS_LABEL: label})
    assert found in (None, ())


def test_functions_stand_in_the_label():
    label = json.dumps([{"name": "average", "kind": "central"}, {"name": "partial_average", "kind": "partial"}])
    assert functions_of({FUNCTIONS_LABEL: label}) == ("average", "partial_average")
