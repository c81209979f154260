"""A node behind a network that can be cut in every way: its own network namespace, with one cable to the rest of the machine.

A relay in between would end the node's connections itself and hide what it does to them; here packets of the node's own connections are
lost, in one direction or in both, or answered with a reset, and nobody tells either end.
"""

import functools
import itertools
import os
import subprocess
from dataclasses import dataclass

CUTS = {
    "pulled": "the cable is pulled",
    "silent": "packets are lost in both directions",
    "deaf": "what comes to the node is lost, what it sends arrives: half open",
    "mute": "what the node sends is lost, what comes to it arrives: half open",
    "reset": "what the node sends is answered with a reset",
}

_number = itertools.count()


@functools.cache
def namespaces_lack() -> str | None:
    """Return why network namespaces can't be used here, None if they can."""
    if os.geteuid():
        return "network namespaces need root"
    try:
        namespace = Namespace.make()
        try:
            namespace.cut("silent")
        finally:
            namespace.remove()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{getattr(error, 'stderr', '') or error}".strip() + ": run `tools/services namespaces`"
    return None


@dataclass(frozen=True)
class Namespace:
    """A network namespace with a cable to this one."""

    name: str
    cable: str
    host: str
    """This machine's address, as the namespace sees it."""

    @classmethod
    def make(cls) -> "Namespace":
        """Make one. Needs root, iproute2 and nftables."""
        number = (os.getpid() * 8 + next(_number)) % (1 << 14)
        name, base = f"folkmoot-{number}", number * 4
        network = f"10.{213 + (base >> 16)}.{base >> 8 & 255}"
        namespace = cls(name, f"fm{number}h", f"{network}.{(base & 255) + 1}")
        own = f"{network}.{(base & 255) + 2}/30"
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", namespace.cable, "type", "veth", "peer", "name", "node", "netns", name)
        _run("ip", "address", "add", f"{namespace.host}/30", "dev", namespace.cable)
        _run("ip", "link", "set", namespace.cable, "up")
        for command in ("link set lo up", f"address add {own} dev node", "link set node up"):
            _run("ip", "-n", name, *command.split())
        return namespace

    @property
    def command(self) -> tuple[str, ...]:
        """What a command begins with that runs in it."""
        return ("ip", "netns", "exec", self.name)

    def cut(self, how: str) -> None:
        """Cut it off in one of the ways of CUTS, connections that stand included."""
        match how:
            case "pulled":
                _run("ip", "link", "set", self.cable, "down")
            case "silent":
                self._rules("input", "drop")
                self._rules("output", "drop")
            case "deaf":
                self._rules("input", "drop")
            case "mute":
                self._rules("output", "drop")
            case _:
                self._rules("output", "meta l4proto tcp reject with tcp reset")

    def mend(self) -> None:
        """Let everything through again."""
        _run("ip", "link", "set", self.cable, "up")
        _run(*self.command, "nft", "flush", "ruleset")

    def remove(self) -> None:
        """Remove it, with the cable."""
        _run("ip", "netns", "delete", self.name)
        subprocess.run(
            ["ip", "link", "delete", self.cable], capture_output=True, check=False
        )  # goes with it, a moment later

    def _rules(self, hook: str, verdict: str) -> None:
        rules = f"add table inet cut\nadd chain inet cut {hook} {{ type filter hook {hook} priority 0; }}\n"
        rule = f"add rule inet cut {hook} {'iifname' if hook == 'input' else 'oifname'} node {verdict}\n"
        subprocess.run(
            [*self.command, "nft", "--file", "-"], input=rules + rule, capture_output=True, text=True, check=True
        )


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True)
