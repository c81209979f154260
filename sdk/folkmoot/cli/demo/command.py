"""The demo, phase by phase."""

import asyncio
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import click

from folkmoot.cli.demo import analyses, chart, data, server_view
from folkmoot.cli.demo.analyses import Answer, Images
from folkmoot.cli.demo.cast import LABEL, Cast, assemble, create_accounts, hospital, open_stations
from folkmoot.cli.demo.data import Split
from folkmoot.cli.demo.images import container_images, process_images
from folkmoot.cli.demo.processes import Processes
from folkmoot.cli.demo.view import View, summary
from folkmoot.client import AsyncClient
from folkmoot.client.names import name_of
from folkmoot.transport import ServerAddress
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2

CHECKOUT = Path(__file__).resolve().parents[4]
PICTURE = Path("survival.png")


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running, and print how to use it.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "docker", "process"]),
    default="auto",
    help="What keeps algorithms apart; auto: containers if there is an engine.",
)
@click.option("--base", default="", help="Base image of the algorithms; default: python:3.12-slim, or the offline one.")
@click.option("--picture", type=click.Path(path_type=Path), default=PICTURE, help="Where the survival curve goes.")
def demo(*, keep: bool, runtime: str, base: str, picture: Path) -> None:
    """Run the main job: three hospitals, real data, sealed analyses, answers equal to the pooled ones."""
    source = CHECKOUT / "examples"
    if not (source / "data" / "ncctg_lung.csv").is_file():
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            "the demo needs the examples of Folkmoot's source: run it from a checkout that is installed with pip install -e",
        )
    if lacking := [name for name in ("lifelines", "matplotlib") if importlib.util.find_spec(name) is None]:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            f"the demo needs {' and '.join(lacking)}, to compare with and to draw: pip install 'folkmoot[demo]'",
        )
    answers = asyncio.run(_run(source, keep=keep, runtime=runtime, base=base, picture=picture))
    if not all(answer.equal and answer.proven for answer in answers):
        raise click.ClickException("an answer differs from the pooled one, or is not proven")


async def _run(source: Path, *, keep: bool, runtime: str, base: str, picture: Path) -> list[Answer]:
    folder = Path(tempfile.mkdtemp(prefix="folkmoot-demo-"))
    processes = Processes(folder, python_path=source.parent)
    failed = False
    try:
        return await _perform(processes, folder, source, keep=keep, runtime=runtime, base=base, picture=picture)
    except Exception:
        failed = True
        click.echo(f"What the processes said is in {folder}", err=True)
        raise
    finally:
        await processes.stop()
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)


async def _perform(
    processes: Processes, folder: Path, source: Path, *, keep: bool, runtime: str, base: str, picture: Path
) -> list[Answer]:
    view = View()
    libraries = asyncio.create_task(asyncio.to_thread(_import_libraries))
    with view.phase("Data"):
        split = data.split(source / "data" / "ncctg_lung.csv")
        view.say("NCCTG lung cancer trial, split by institution", *_described(split))
    with view.phase("Algorithms"):
        images, kind = await _images(view, source, runtime, base)
    with view.phase("Server and collaboration"):
        cast = await _bring_together(view, processes, folder)
    with view.phase("Nodes"):
        files = _write_data(split, folder)
        await open_stations(cast, processes, images=images.all, runtime=kind, sockets=folder / "s", data=files)
        view.say("each joined by an invitation of its hospital, and allows these three images to every member")
    await libraries
    first = cast.hospitals[0]
    async with cast.client(first, first.researcher) as client:
        answers = await _analyse(view, client, images, split, picture)
        with view.phase("What the server saw"):
            view.say(*await _seen(client, answers, folder))
    view.timing()
    summary(answers)
    if keep:
        click.echo(_how_to_use(cast, folder, images))
        await processes.wait()
    return answers


def _import_libraries() -> None:
    """What the pooled truth and the picture need takes seconds to import; meanwhile the server and the nodes start."""
    import lifelines  # noqa: F401
    import matplotlib.figure  # noqa: F401


def _described(split: Split) -> list[str]:
    held = [
        f"{name}: {len(rows)} patients of institutions {', '.join(f'{float(inst):g}' for inst in split.institutions[name])}"
        for name, rows in split.rows.items()
    ]
    tiny = ", ".join(f"{float(institution):g}" for institution in split.tiny)
    return [
        *held,
        f"institutions with fewer than {data.TINY_PATIENTS} patients ({tiny}) share a hospital with large ones",
        f"{split.without_institution} patient without institution belongs to nobody: left out here and in the pooled truth",
    ]


async def _images(view: View, source: Path, runtime: str, base: str) -> tuple[Images, str]:
    if runtime != "process":
        try:
            images, used = await asyncio.to_thread(container_images, source, base)
        except FolkmootError as error:
            if runtime == "docker":
                raise
            view.say(f"no containers: {error}")
        else:
            view.say(f"three container images on {used}: no network, read-only, no privileges, one socket to the node")
            return images, "docker"
    view.say(
        "plain processes: WITHOUT ISOLATION. An algorithm could read this user's files and use the network.",
        "Fit for trying Folkmoot out, never for data that matters.",
    )
    sys.path.append(str(source.parent))  # A process image is named by its source, which this process hashes, too.
    return process_images(), "process"


async def _bring_together(view: View, processes: Processes, folder: Path) -> Cast:
    started = await processes.start(
        "server",
        *("server", "start", "--data", str(folder / "server"), "--listen", "127.0.0.1:0"),
        ready="Serving on ",
    )
    authority = folder / "server" / "tls" / "ca.pem"
    address = ServerAddress(_said(started, "Serving on "), authority.read_bytes())
    hospitals = [hospital(name, folder / name.lower()) for name in data.HOSPITALS]
    await create_accounts(address, _said(started, "Set-up token: "), hospitals)
    cast = await assemble(address, authority, hospitals)
    founder, *others = (one.name for one in hospitals)
    view.say(
        f"{founder} founded {cast.reference}",
        f"{' and '.join(others)} asked to join and were voted in by more than half of the members",
    )
    return cast


def _said(output: str, before: str) -> str:
    return next(line.removeprefix(before) for line in output.splitlines() if line.startswith(before))


def _write_data(split: Split, folder: Path) -> dict[str, Path]:
    files = {name: folder / name.lower() / "patients.csv" for name in split.rows}
    for name, rows in split.rows.items():
        data.write(rows, split.columns, files[name])
    return files


async def _analyse(view: View, client: AsyncClient, images: Images, split: Split, picture: Path) -> list[Answer]:
    with view.phase("Average"):
        view.say("a central function, and three partial ones")
        average = await analyses.average(client, images.average, split)
        view.answer(average)
    with view.phase("Survival"):
        view.say("Kaplan-Meier, against lifelines on the pooled data")
        survival, curve = await analyses.survival(client, images.survival, split)
        view.answer(survival)
        view.say(*chart.terminal(curve))
        days = range(0, int(curve.times[-1]), 200)
        chart.picture(curve, picture, title="Survival, NCCTG lung cancer trial", at_risk_at=days)
        view.say(f"as a picture: {picture}")
    with view.phase("Secure sum, chained tasks"):
        view.say("nobody learns another's count")
        chained = await analyses.secure_sum_chained(client, images.secure_sum, split)
        view.answer(chained)
    with view.phase("Secure sum, messages"):
        view.say("one task, whose runs message each other")
        messages = await analyses.secure_sum_messages(client, images.secure_sum, split)
        view.answer(messages)
    return [average, survival, chained, messages]


async def _seen(client: AsyncClient, answers: list[Answer], folder: Path) -> list[str]:
    state = await client.connection.state()
    names = {member: name_of(state, member) for member in state.members}
    return server_view.seen(answers, names, folder / "server")


def _how_to_use(cast: Cast, folder: Path, images: Images) -> str:
    first = cast.hospitals[0]
    (folder / "password").write_text(first.password)
    (folder / "password").chmod(0o600)
    return f"""
Everything is running until Ctrl-C, in {folder}

From Python:
    from pathlib import Path
    from folkmoot.client import Client, Subtasks
    client = Client("{cast.reference}",
                    server="{cast.address.target}", certificate_authority="{cast.authority_file}",
                    username="{first.researcher}", password=Path("{folder}/password").read_text(),
                    organization_key="{first.key_file}")
    task = client.tasks.create(image="{images.average}", function="average", arguments={{"column": "wt.loss"}},
                               organizations=["{first.name}"], labels=["{LABEL}"], subtasks=Subtasks())
    print(task.wait()[0].value)

With grpcurl (buf curl --protocol grpc --cacert takes the same calls):
    TOKEN=$(grpcurl -cacert {cast.authority_file} -d '{{"username": "{first.researcher}", "password": "'$(cat {folder}/password)'"}}' \\
        {cast.address.target} folkmoot.v1.AuthService/Login | python3 -c 'import json, sys; print(json.load(sys.stdin)["tokens"]["accessToken"])')
    grpcurl -cacert {cast.authority_file} {cast.address.target} list
    grpcurl -cacert {cast.authority_file} -H "authorization: Bearer $TOKEN" {cast.address.target} folkmoot.v1.TaskService/ListTasks
"""
