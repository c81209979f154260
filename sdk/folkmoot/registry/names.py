"""Names of repositories, as people and engines write them, and where their registry is."""

import ipaddress
from dataclasses import dataclass

DOCKER_HUB = "docker.io"
_DOCKER_HUB_ADDRESS = "registry-1.docker.io"
_OFFICIAL = "library/"


@dataclass(frozen=True)
class Repository:
    """A repository: the registry's host (with its port), and the path there."""

    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """Read `registry.example.org/team/name`; a first part that is no host belongs to Docker Hub, as for the engine."""
        first, _, rest = text.partition("/")
        if rest and ("." in first or ":" in first or first == "localhost"):
            host, path = first, rest
        else:
            host, path = DOCKER_HUB, text
        if host == DOCKER_HUB and "/" not in path:
            path = _OFFICIAL + path
        return cls(host, path)

    def __str__(self) -> str:
        """As the engine lists it."""
        return self.path.removeprefix(_OFFICIAL) if self.host == DOCKER_HUB else f"{self.host}/{self.path}"

    @property
    def address(self) -> str:
        """Where the registry's API is."""
        return _DOCKER_HUB_ADDRESS if self.host == DOCKER_HUB else self.host

    @property
    def may_be_plain(self) -> bool:
        """Whether the registry may be talked to without TLS: only on this machine, which is the engine's rule too."""
        return is_this_machine(self.host.rpartition(":")[0] or self.host)


def is_this_machine(name: str) -> bool:
    """Whether a host, without its port, is this machine, as it says itself."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
