"""The built-in commands: where each is, and its line of `folkmoot --help`, so that a command imports what it needs and no other.

A test compares each line with the command's own help.
"""

from dataclasses import dataclass
from importlib import import_module

import click


@dataclass(frozen=True)
class BuiltIn:
    """A command, or a group of commands."""

    module: str
    help: str

    def load(self, name: str) -> click.Command:
        """Import it; the module calls it by its name."""
        command = getattr(import_module(self.module), name.replace("-", "_"))
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.module} has no command {name}")
        return command


BUILT_IN = {
    "about": BuiltIn(
        "folkmoot.cli.about",
        "Show the server's release, its clock, how people log in, and whether organizations may register themselves.",
    ),
    "account": BuiltIn("folkmoot.cli.account", "Your own account at the server."),
    "algorithm": BuiltIn(
        "folkmoot.cli.algorithms", "Algorithms: build them, see what they say of themselves, vote on which are allowed."
    ),
    "api-key": BuiltIn(
        "folkmoot.cli.account",
        "Keys with which applications act for you (FOLKMOOT_API_KEY), within rules that you have.",
    ),
    "collaboration": BuiltIn(
        "folkmoot.cli.collaborations",
        "Collaborations: who belongs to them is decided by their members and recounted by each of them.",
    ),
    "event": BuiltIn(
        "folkmoot.cli.events", "The audit trail: who did what at the server, when, and with what outcome."
    ),
    "key": BuiltIn("folkmoot.cli.keys", "An organization's keys: make, show, publish, rotate, revoke them."),
    "login": BuiltIn("folkmoot.cli.login", "Log in at a server, and remember the values for later commands."),
    "logout": BuiltIn(
        "folkmoot.cli.login", "End the login that `folkmoot login --keep` keeps, here and at the server."
    ),
    "node": BuiltIn("folkmoot.cli.nodes", "Data stations."),
    "organization": BuiltIn("folkmoot.cli.organizations", "Accounts of organizations at the server."),
    "proof": BuiltIn(
        "folkmoot.cli.proofs",
        "Proofs: a task with everything signed about it, in a file that needs no server to be believed.",
    ),
    "role": BuiltIn("folkmoot.cli.roles", "Roles: named sets of rules, the default ones and those of organizations."),
    "rule": BuiltIn("folkmoot.cli.roles", "Rules: what is done to what, and how far that reaches."),
    "session": BuiltIn("folkmoot.cli.sessions", "Sessions: dataframes that stay at the nodes, for later tasks."),
    "setup": BuiltIn(
        "folkmoot.cli.login",
        "Make a new server's first user, with the token that it printed at its first start (FOLKMOOT_SETUP_TOKEN, or asked for).",
    ),
    "study": BuiltIn(
        "folkmoot.cli.studies", "Studies: organizations of the collaboration that are asked together, by one name."
    ),
    "task": BuiltIn("folkmoot.cli.tasks", "Tasks: questions to organizations, and their answers."),
    "usage": BuiltIn(
        "folkmoot.cli.events",
        "Tell what organizations have used of the server, day by day: runs, their time, sealed bytes stored and fetched.",
    ),
    "user": BuiltIn("folkmoot.cli.users", "Users at the server."),
}
