"""What can go wrong with a registry. Each error carries its catalogue reason; only `RegistryUnreachable` may pass by itself."""

# Named after what is the matter, like the rest of the tree of errors.
# ruff: noqa: N818

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason


class RegistryUnreachable(FolkmootError):
    """It does not answer, or says that it can't now. Trying again later may help."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_IMAGE_UNAVAILABLE, f"the registry {host} can't be reached: {why}")


class LoginRefused(FolkmootError):
    """It wants another login."""

    def __init__(self, host: str, *, login_given: bool) -> None:
        what = "does not accept the login that is kept for it" if login_given else "asks for a login, and none is kept"
        super().__init__(
            ErrorReason.ERROR_REASON_IMAGE_UNAVAILABLE,
            f"the registry {host} {what}: run `docker login {host}` for the file that holds the logins",
        )


class NotInRegistry(FolkmootError):
    """It has no such thing."""

    def __init__(self, name: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_IMAGE_NOT_FOUND, f"the registry does not have {name}")


class RegistryAltered(FolkmootError):
    """What it gives is not what the digest names, or has a form that can't be."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_IMAGE_ALTERED, f"{name}: {why}")
