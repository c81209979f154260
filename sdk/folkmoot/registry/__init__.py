"""Container registries, as clients, authors and nodes use them: what a tag names, which login fits, and who has signed an image.

By HTTP with nothing but the standard library; engines fetch images themselves. Nothing that a registry says is believed unless it has the
digest that was asked for, except which digest a tag has. Everything read is bounded. No login is ever part of an error or a log.
"""

from folkmoot.registry.api import Registry
from folkmoot.registry.errors import LoginRefused, NotInRegistry, RegistryAltered, RegistryUnreachable
from folkmoot.registry.labels import image_labels
from folkmoot.registry.logins import DOCKER_LOGINS, Login, find_login
from folkmoot.registry.names import Repository
from folkmoot.registry.signatures import ImageSignature, SignerKey, load_signer_key, signers_of

__all__ = [
    "DOCKER_LOGINS",
    "ImageSignature",
    "Login",
    "LoginRefused",
    "NotInRegistry",
    "Registry",
    "RegistryAltered",
    "RegistryUnreachable",
    "Repository",
    "SignerKey",
    "find_login",
    "image_labels",
    "load_signer_key",
    "signers_of",
]
