"""Write the reference in docs/ from what it describes: errors and permissions from the contract, settings and commands from the code.

`--check` writes nothing and fails when what is committed differs from what would be written today.
"""

import argparse
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from folkmoot.cli.app import folkmoot
from folkmoot.cli.exits import Exit
from folkmoot.cli.profile import Profile
from folkmoot.node.config import CollaborationConfig, DataBlock, NodeConfig
from folkmoot.node.config import Setting as NodeSetting
from folkmoot.node.policy.policy_file import DataframesPolicy, Policy, PolicyLimits, Quotas, Rule
from folkmoot.server.config import SETTINGS
from folkmoot.server.people.roles import MEANINGFUL, ROLES
from folkmoot.trust.reasons import reason_name, rule_of
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.options_pb2 import Caller, Code, Operation, Resource, Scope, access

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # as a script, too

from tools import data_model  # noqa: E402

NOTE = "<!-- Written by `make generate`: do not edit. -->"


# ---- errors --------------------------------------------------------------------------------------------------------

ERRORS_HEAD = f"""# Errors

{NOTE}

Every refusal has a reason out of one catalogue, [errors.proto](../proto/folkmoot/v1/errors.proto). It stands at the head
of the message (`TASK_NOT_FOUND: …`) and in `google.rpc.ErrorInfo` with the domain `folkmoot`; the metadata has the
request's id, by which the server's log finds it. Wrong fields are named in `google.rpc.BadRequest`; where waiting helps,
`google.rpc.RetryInfo` says how long. In Python it is `error.reason_name` of a `FolkmootError`.

| reason | status | means | what to do |
|---|---|---|---|
"""


def errors() -> str:
    """Return docs/errors.md."""
    meanings = comments((ROOT / "proto/folkmoot/v1/errors.proto").read_text())
    rows = []
    for name, number in ErrorReason.items():
        if number:
            rule = rule_of(number)
            code = Code.Name(rule.code).removeprefix("CODE_")
            rows.append(f"| `{reason_name(number)}` | {code} | {meanings[name]} | {rule.help} |\n")
    return ERRORS_HEAD + "".join(rows)


def comments(proto: str) -> Mapping[str, str]:
    """Return the comment above each value of the contract's enum."""
    found = re.findall(r"((?:^  //.*\n)+)^  (ERROR_REASON_\w+) =", proto, re.MULTILINE)
    return {name: " ".join(re.findall(r"// (.*)", text)) for text, name in found}


# ---- settings ------------------------------------------------------------------------------------------------------

SETTINGS_HEAD = f"""# Settings

{NOTE}

## Server

Each is a key of the settings file that `folkmoot server init` writes (TOML, the name below without its dashes), an
environment variable, and an option of `folkmoot server`. An option wins over the environment, that over the file, that
over the default. Unknown keys are refused with the one that was probably meant. A URL with a password in it is refused as
an option, which every user of the machine can read. `folkmoot server settings` prints this list.

| option | environment | default | what it does |
|---|---|---|---|
"""

NODE_HEAD = """
## Node: node.toml

`folkmoot node join` writes one to start from. Relative paths begin at the file's own folder. A key that is unknown or
of a wrong form is refused with its name.
"""

POLICY_HEAD = """
## Policy: policy.toml

What the data owner allows; what no `[[allow]]` rule covers is refused. `folkmoot node reload` has a running node read it again.
Images are written `registry.example.org/x/y@sha256:…`, `local:sha256:…` or `process:package.module`; in patterns `*`
stands for any characters, slashes among them, `?` for one, `[…]` for one of several.
"""

PROFILE_HEAD = """
## Command line: config.toml

`folkmoot login` writes it, in the user's configuration folder or where `--config` or `FOLKMOOT_CONFIG` say. An
environment variable takes the place of a value in it. Secrets are never in it, and never options: `FOLKMOOT_PASSWORD`,
`FOLKMOOT_TOTP_CODE`, `FOLKMOOT_API_KEY`, `FOLKMOOT_PASSPHRASE`, `FOLKMOOT_NEW_PASSWORD`, `FOLKMOOT_RESET_TOKEN` and
`FOLKMOOT_SETUP_TOKEN` are read from the environment, or from the file that a variable of the same name with `_FILE` names, or asked for.

| key | environment | what it is |
|---|---|---|
"""

TABLE_HEAD = "\n### {title}\n\n| key | default | what it is |\n|---|---|---|\n"


def settings() -> str:
    """Return docs/settings.md."""
    server = "".join(f"| `{one.option}` | `{one.variable}` | {value(one.default)} | {one.help} |\n" for one in SETTINGS)
    node = (table("The file", NodeConfig), table("[[collaboration]]", CollaborationConfig))
    data = table("[collaboration.data.LABEL]", DataBlock)
    policy = (
        table("The file", Policy),
        table("[[allow]]", Rule),
        table("[limits] and [resource_classes.NAME]", PolicyLimits),
        table("[quotas]", Quotas),
        table("[dataframes]", DataframesPolicy),
    )
    return "".join((SETTINGS_HEAD, server, NODE_HEAD, *node, data, POLICY_HEAD, *policy, PROFILE_HEAD, *profile()))


def table(title: str, kind: type[Any]) -> str:
    """Return the settings of a dataclass, as rows."""
    rows = (f"| `{name}` | {default} | {text} |\n" for name, default, text in node_settings(kind))
    return TABLE_HEAD.format(title=title) + "".join(rows)


def node_settings(kind: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and explanation of each setting."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        (setting,) = (one for one in get_args(hints[field.name]) if isinstance(one, NodeSetting))
        yield field.name, node_default(field), explained(setting)


def node_default(field: "dataclasses.Field[Any]") -> str:
    """Return a setting's default as the file would have it."""
    if field.default is not dataclasses.MISSING:
        return value(field.default)
    return "required" if field.default_factory is dataclasses.MISSING else ""


def explained(setting: NodeSetting) -> str:
    """Return what a setting means, with the values that it takes."""
    choices = ", ".join(f"`{one}`" for one in setting.choices)
    return "".join(
        (
            setting.explanation,
            f"; one of {choices}" if choices else "",
            f"; at least {setting.minimum:,}" if setting.minimum else "",
        )
    )


def value(default: object) -> str:
    """Return a default as people write it."""
    if default == ():
        return "none"
    if default in (None, ""):
        return ""
    if isinstance(default, tuple):
        return f"`{json.dumps(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def profile() -> Iterable[str]:
    """Yield the rows of the command line's profile."""
    for field in dataclasses.fields(Profile):
        if field.metadata:
            yield f"| `{field.name}` | `FOLKMOOT_{field.name.upper()}` | {field.metadata['help']} |\n"


# ---- commands ------------------------------------------------------------------------------------------------------

COMMANDS_HEAD = f"""# Commands

{NOTE}

`--help` says the same of each, and `folkmoot --config FILE …` chooses whose server, user and keys a command uses
([settings](settings.md)). Lists come as tables; `--json` gives programs the same in a shape that stays as it is: times by
ISO 8601, ids and names as text, what is absent as null or empty. What can't be taken back asks first, unless `--yes` says so.
`folkmoot completion bash`, `zsh` or `fish` prints what completes commands in that shell.
"""

EXITS_HEAD = "\n## Exit codes\n\n| code | means |\n|---|---|\n"


def commands() -> str:
    """Return docs/commands.md."""
    codes = (f"| {code.value} | {code.meaning} |\n" for code in Exit)
    return "".join((COMMANDS_HEAD, *sections(folkmoot, click.Context(folkmoot), "folkmoot"), EXITS_HEAD, *codes))


def sections(command: click.Command, context: click.Context, path: str) -> Iterator[str]:
    """Yield a section for a command and for each below it."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from sections(below, context, f"{path} {name}")
        return
    arguments = [one.human_readable_name for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option)]
    yield f"\n## {' '.join([path, *arguments])}\n\n{paragraphs(command.help or '')}\n"
    if options:
        yield "\n| option | what it does |\n|---|---|\n"
        yield from (f"| {spelled(one)} | {described(one)} |\n" for one in options)


def paragraphs(text: str) -> str:
    """Return a command's help with each paragraph on one line."""
    return "\n\n".join(" ".join(one.split()) for one in inspect.cleandoc(text).split("\n\n"))


def spelled(option: click.Option) -> str:
    """Return all forms of an option, with what it takes."""
    forms = ", ".join(f"`{one}`" for one in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return forms
    if isinstance(option.type, click.Choice):
        return f"{forms} {' or '.join(option.type.choices)}"
    return f"{forms} {option.type.name.split()[0]}"


def described(option: click.Option) -> str:
    """Return what an option does; whether it has to be there, what it is otherwise."""
    notes = ["required"] * option.required
    if isinstance(option.show_default, str):
        notes.append(f"default {value(option.show_default)}")
    elif option.show_default:
        notes += [f"default {value(option.default)}"] * bool(value(option.default))
    return " ".join(filter(None, (option.help, f"({', '.join(notes)})" if notes else "")))


# ---- permissions ---------------------------------------------------------------------------------------------------

PERMISSIONS_HEAD = f"""# Permissions

{NOTE}

A user has roles, and perhaps extra rules; a role is a set of rules; a rule is a resource, an operation and a scope. A wider
scope includes the narrower ones. What no rule allows is refused, and the refusal is in the audit trail.

| scope | among accounts, users and roles | among tasks, runs, studies, sessions, events, nodes, collaborations |
|---|---|---|
| OWN | the user himself | what the user made |
| ORGANIZATION | the user's own organization | what the organization made, or has |
| COLLABORATION | organizations that share a collaboration with it | what is in its collaborations |
| GLOBAL | the whole server | the whole server |

What holds besides:

- Nobody gives a rule that he lacks: not by a role, not by an extra rule, not by making or changing a role, not to a user of
  another organization unless his own rule reaches all of that organization's things.
- Nobody changes or deletes a user who may do what he may not, nor a role that such a user has.
- Somebody who may do everything is always left. Default roles can't be changed.
- What a user may do changes at once: a user whose rules or password are changed logs in anew, a change of a role is felt by
  his next call.
- An API key may do what its rules say, as far as its user may.
- No rule lets anybody read what is sealed to others, speak for an organization, or say who belongs to a collaboration: that
  takes keys, and stands in the ledger ([collaborations](collaborations.md)). So there is no rule for admitting nodes or for
  removing members.

## Rules that there are

| resource | operation | scopes that differ |
|---|---|---|
"""

ROLES_HEAD = """
## Default roles

Each cell says how far the role reaches; an empty one: not at all.

"""

METHODS_HEAD = """
## Methods

Who may call each, as the contract says. A method that needs a rule is refused to users who have it at no scope at all; what
the scope does not reach is not found, or, where it is seen, refused.
"""


def permissions() -> str:
    """Return docs/permissions.md."""
    rules = (
        f"| {word(Resource, resource)} | {word(Operation, operation)} | {', '.join(word(Scope, one) for one in scopes)} |\n"
        for (resource, operation), scopes in MEANINGFUL.items()
    )
    purposes = (f"- **{role.name}**: {role.description}\n" for role in ROLES.values())
    return "".join((PERMISSIONS_HEAD, *rules, ROLES_HEAD, *purposes, "\n", *reaches(), METHODS_HEAD, *services()))


def reaches() -> Iterator[str]:
    """Yield the table of default roles: how far each reaches, for whatever a rule can allow."""
    yield f"| | {' | '.join(ROLES)} |\n|---{'|---' * len(ROLES)}|\n"
    for resource, operation in MEANINGFUL:
        scopes = []
        for role in ROLES.values():
            reach = max((rule.scope for rule in role.rules if rule[:2] == (resource, operation)), default=None)
            scopes.append(word(Scope, reach) if reach else "")
        yield f"| {word(Resource, resource)} {word(Operation, operation)} | {' | '.join(scopes)} |\n"


def services() -> Iterator[str]:
    """Yield a table of methods for each service of the contract."""
    for path in sorted((ROOT / "proto/folkmoot/v1").glob("*_service.proto")):
        meanings = callers_of(path.read_text())
        file: Any = import_module(f"folkmoot.v1.{path.stem}_pb2").DESCRIPTOR
        for service in file.services_by_name.values():
            yield f"\n### {service.name}\n\n| method | callers | rule | in words |\n|---|---|---|---|\n"
            for method in service.methods:
                given = method.GetOptions().Extensions[access]
                kinds = ", ".join(word(Caller, one).lower().replace("_", " ") for one in given.callers)
                asks = given.resource and Caller.CALLER_USER in given.callers
                rule = f"{word(Resource, given.resource)} {word(Operation, given.operation)}" if asks else ""
                yield f"| {method.name} | {kinds} | {rule} | {meanings[method.name]} |\n"


def callers_of(proto: str) -> Mapping[str, str]:
    """Return what the comment above each method says of its callers."""
    found = re.findall(r"((?:^  //.*\n)+)^  rpc (\w+)\(", proto, re.MULTILINE)
    texts = {name: " ".join(re.findall(r"// (.*)", text)) for text, name in found}
    wanted = re.compile(r"Callers: (.*?)\.? (?:Idempotent|Not idempotent|Errors)\b|Callers: (.*?)\.?$")
    return {
        name: next(filter(None, match.groups())) if (match := wanted.search(text)) else ""
        for name, text in texts.items()
    }


def word(kind: Any, value: int) -> str:
    """Return a value of one of the contract's enums without what all of them begin with."""
    name: str = kind.Name(value)
    return name.partition("_")[2]


# ---- all -----------------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "docs/errors.md": errors,
    "docs/settings.md": settings,
    "docs/commands.md": commands,
    "docs/permissions.md": permissions,
    "docs/data-model.md": data_model.document,
}


def main() -> None:
    """Write the documents, or with --check compare with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; fail when something differs")
    check = parser.parse_args().check

    stale = []
    for name, write in DOCUMENTS.items():
        path, text = ROOT / name, write()
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(name)
    if stale:
        sys.exit("documents are not those of contract and code; run `make generate`:\n  " + "\n  ".join(stale))


if __name__ == "__main__":
    main()
