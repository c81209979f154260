"""What a shell completes besides commands and options: this machine's profiles, and members by its verified copy of the ledger.

Nobody is asked for it, neither the server nor, for a password, the user.
"""

import click

from folkmoot.cli.profile import Profile, default_path
from folkmoot.trust import FolkmootError


def profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - as click calls it
    """The names of the profiles that `folkmoot --profile NAME login` has made."""
    files = default_path().parent.glob("*.toml")
    return sorted(file.stem for file in files if file.stem != "config" and file.stem.startswith(incomplete))


def members(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - as click calls it
    """The names of the members of the profile's collaboration."""
    from folkmoot.cli.access import local_state

    given = ctx.find_root().params
    try:
        state = local_state(Profile.load(given.get("config") or default_path(given.get("profile") or "config")))
    except FolkmootError:  # The command itself says what is wrong.
        return []
    names = [member.name for member in state.members.values()] if state else []
    return sorted(name for name in names if name.lower().startswith(incomplete.lower()))
