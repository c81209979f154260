"""The demo's analyses: each asks the hospitals, verifies and opens the answers, and puts them beside the pooled truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from folkmoot.cli.demo import truth
from folkmoot.cli.demo.cast import LABEL
from folkmoot.cli.demo.data import Split
from folkmoot.cli.demo.truth import Curve
from folkmoot.client import AsyncClient, AsyncTask, Result, Subtasks

COLUMN = "age"
PURPOSE = "demo"


@dataclass(frozen=True)
class Answer:
    """What came out, and what the pooled data says. `equal` is the comparison, never assumed."""

    title: str
    ours: str
    pooled: str
    equal: bool
    proven: bool
    """Whether every run behind it ended with a receipt that its node signed."""
    tasks: Sequence[AsyncTask]


@dataclass(frozen=True)
class Images:
    """The three algorithms, as texts that name their images."""

    average: str
    survival: str
    secure_sum: str

    @property
    def all(self) -> Sequence[str]:
        """The three."""
        return (self.average, self.survival, self.secure_sum)


async def average(client: AsyncClient, image: str, split: Split) -> Answer:
    """The mean age over all hospitals, by a central function that asks each for a sum and a count."""
    task = await client.tasks.create(
        image=image,
        function="average",
        arguments={"column": COLUMN},
        organizations=[next(iter(split.rows))],
        labels=[LABEL],
        subtasks=Subtasks(),
        name="average age",
        purpose=PURPOSE,
    )
    (result,) = await task.wait(progress=False)
    ours, pooled = float(result.value["average"]), truth.average(split.pooled, COLUMN)
    return Answer(
        f"average of {COLUMN}", f"{ours:.12g}", f"{pooled:.12g}", truth.equal(ours, pooled), _proven([result]), [task]
    )


async def survival(client: AsyncClient, image: str, split: Split) -> tuple[Answer, Curve]:
    """The Kaplan-Meier curve over all hospitals, with numbers at risk."""
    task = await client.tasks.create(
        image=image,
        function="survival",
        arguments={"time": "time", "event": "status"},
        organizations=[next(iter(split.rows))],
        labels=[LABEL],
        subtasks=Subtasks(),
        name="survival",
        purpose=PURPOSE,
    )
    (result,) = await task.wait(progress=False)
    value: Mapping[str, Sequence[float]] = result.value
    ours = Curve(value["times"], value["survival"], [int(count) for count in value["at_risk"]])
    pooled = truth.survival(split.pooled, "time", "status")
    described, expected = (
        f"{len(curve.times)} times, median {_median(curve):g} days, {curve.at_risk[0]} at risk at the start"
        for curve in (ours, pooled)
    )
    return Answer("survival", described, expected, truth.equal_curves(ours, pooled), _proven([result]), [task]), ours


async def secure_sum_chained(client: AsyncClient, image: str, split: Split) -> Answer:
    """All patients, by tasks that depend on each other: A masks its count, B and C add theirs, A unmasks; each sum is sealed to the
    next hospital alone, and R waits in A's scratch."""
    ring = list(split.rows)
    first = ring[0]
    tasks = [
        await client.tasks.create(
            image=image,
            function="mask",
            organizations=[first],
            result_receivers=[ring[1]],
            labels=[LABEL],
            scratch=True,
            name=f"x1: {first} to {ring[1]}",
            purpose=PURPOSE,
        )
    ]
    for number, (organization, following) in enumerate(zip(ring[1:], [*ring[2:], first], strict=True), start=2):
        tasks.append(
            await client.tasks.create(
                image=image,
                function="add",
                organizations=[organization],
                result_receivers=[following],
                labels=[LABEL],
                after=[tasks[-1]],
                name=f"x{number}: {organization} to {following}",
                purpose=PURPOSE,
            )
        )
    tasks.append(
        await client.tasks.create(
            image=image,
            function="unmask",
            organizations=[first],
            result_receivers=ring,
            after=[tasks[-1]],
            scratch=True,
            name="N to all",
            purpose=PURPOSE,
        )
    )
    results = [result for task in tasks for result in await task.wait(progress=False)]
    return _sum("secure sum, chained tasks", [int(results[-1].value)], results, tasks, split)


async def secure_sum_messages(client: AsyncClient, image: str, split: Split) -> Answer:
    """All patients, by one task whose runs at the hospitals send each other sealed messages."""
    ring = list(split.rows)
    task = await client.tasks.create(
        image=image,
        function="ring",
        organizations=ring,
        labels=[LABEL],
        messages=True,
        name="ring of messages",
        purpose=PURPOSE,
    )
    results = await task.wait(progress=False)
    return _sum("secure sum, messages", [int(result.value) for result in results], results, [task], split)


def _sum(
    title: str, ours: Sequence[int], results: Sequence[Result], tasks: Sequence[AsyncTask], split: Split
) -> Answer:
    pooled = len(split.pooled)
    told = ", ".join(map(str, sorted(set(ours))))
    return Answer(title, told, str(pooled), set(ours) == {pooled}, _proven(results), tasks)


def _proven(results: Sequence[Result]) -> bool:
    return all(result.proven == "proven" for result in results)


def _median(curve: Curve) -> float:
    return next(time for time, survival in zip(curve.times, curve.survival, strict=True) if survival <= 0.5)
