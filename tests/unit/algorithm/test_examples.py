"""What the examples compute is what the pooled data says, and nobody sees more than he may."""

import secrets
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from examples import average, secure_sum, survival
from examples.secure_sum import MODULUS
from tests.unit.algorithm.fakes import World

LUNG = Path(__file__).resolve().parents[3] / "examples/data/ncctg_lung.csv"
NAMES = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon")


@pytest.fixture(scope="module")
def lung() -> pa.Table:
    return pyarrow.csv.read_csv(LUNG)


@pytest.fixture
def hospitals(lung) -> dict[str, pa.Table]:
    """The patients dealt out to three organizations, in lots of different size."""
    return {"Alpha": lung.slice(0, 31), "Beta": lung.slice(31, 100), "Gamma": lung.slice(131)}


def table(**columns: Sequence[object]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.float64()) for name, values in columns.items()})


# ---- average -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["age", "meal.cal"])
def test_average_is_that_of_the_pooled_data(lung, hospitals, column):
    result = World(average, hospitals).call("Beta", "average", {"column": column})
    assert result["average"] == pytest.approx(pc.mean(lung.column(column)).as_py(), rel=1e-12)
    assert result["count"] == len(lung) - lung.column(column).null_count


def test_average_of_some_organizations(hospitals):
    world = World(average, hospitals)
    assert world.call("Beta", "average", {"column": "age", "organizations": ["Alpha"]})["count"] == 31


def test_average_of_nothing_is_none():
    data = {name: table(age=[None]) for name in NAMES[:3]}
    assert World(average, data).call("Alpha", "average", {"column": "age"}) == {"average": None, "count": 0}


# ---- survival ------------------------------------------------------------------------------------------------------


def lifelines(times: list[float], events: list[int]) -> dict[str, list[float]]:
    fitter = KaplanMeierFitter().fit(times, events)
    rows = fitter.event_table[fitter.event_table.index.isin(set(times))]
    return {
        "times": list(rows.index),
        "survival": list(fitter.survival_function_.loc[rows.index, "KM_estimate"]),
        "at_risk": list(rows["at_risk"]),
        "events": list(rows["observed"]),
        "censored": list(rows["censored"]),
    }


def assert_equal_curves(ours, pooled) -> None:
    for key, values in pooled.items():
        assert ours[key] == pytest.approx(values, abs=1e-9), key


def test_survival_is_what_lifelines_says_of_the_pooled_data(lung, hospitals):
    moments = [0, 100, 310, 500, 2000]
    arguments = {"time": "time", "event": "status", "at": moments}
    ours = World(survival, hospitals).call("Alpha", "survival", arguments)
    times = lung.column("time").to_pylist()
    assert_equal_curves(ours, lifelines(times, lung.column("status").to_pylist()))
    assert ours["at_risk_at"] == [sum(time >= moment for time in times) for moment in moments]


def test_survival_by_stratum(lung, hospitals):
    curves = World(survival, hospitals).call("Alpha", "survival", {"time": "time", "event": "status", "by": "sex"})
    assert curves.keys() == {"1", "2"}
    for sex, curve in curves.items():
        rows = lung.filter(pc.equal(lung.column("sex"), int(sex)))
        assert_equal_curves(curve, lifelines(rows.column("time").to_pylist(), rows.column("status").to_pylist()))


patients = st.lists(st.tuples(st.integers(0, 50).map(float), st.integers(0, 1)), min_size=1, max_size=30)


@given(st.lists(patients, min_size=1, max_size=4))
def test_survival_of_any_data_however_it_is_divided(parts):
    data = {
        name: table(time=[time for time, _ in part], event=[event for _, event in part])
        for name, part in zip(NAMES, parts, strict=False)
    }
    ours = World(survival, data).call("Alpha", "survival", {"time": "time", "event": "event"})
    pooled = [patient for part in parts for patient in part]
    assert_equal_curves(ours, lifelines([time for time, _ in pooled], [event for _, event in pooled]))


def test_survival_of_nothing_is_an_empty_curve():
    data = {name: table(time=[None], event=[1]) for name in NAMES[:3]}
    curve = World(survival, data).call("Alpha", "survival", {"time": "time", "event": "event", "at": [1]})
    assert curve == {"times": [], "survival": [], "at_risk": [], "events": [], "censored": [], "at_risk_at": [0]}


def test_event_column_with_other_codes_is_refused():
    world = World(survival, {"Alpha": table(time=[1], event=[2])})
    with pytest.raises(ValueError, match="must be 1"):
        world.call("Alpha", "survival", {"time": "time", "event": "event"})


# ---- secure sum ----------------------------------------------------------------------------------------------------

counts = st.lists(st.integers(0, 40), min_size=3, max_size=5)
random_numbers = st.integers(0, MODULUS - 1) | st.integers(MODULUS - 40, MODULUS - 1)  # those that wrap around as well


def world(module, numbers: list[int], scratch: Path | None = None) -> World:
    data = {name: table(age=[1.0] * number) for name, number in zip(NAMES, numbers, strict=False)}
    return World(module, data, scratch)


@given(numbers=counts, random=random_numbers)
def test_ring_gives_every_run_the_total(numbers, random):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "randbelow", lambda below: random % below)
        ring = world(secure_sum, numbers)
        assert set(ring.run_siblings("ring").values()) == {sum(numbers)}
    last = len(numbers) - 1
    partial_sums = [(random + sum(numbers[: place + 1])) % MODULUS for place in range(len(numbers))]
    assert sorted(ring.passed_on) == sorted(
        [(NAMES[place], NAMES[(place + 1) % len(numbers)], partial_sums[place]) for place in range(len(numbers))]
        + [(NAMES[0], NAMES[place], sum(numbers)) for place in range(1, last + 1)]
    )


@given(numbers=counts, random=random_numbers)
def test_chain_shows_each_sum_to_the_next_one_alone(tmp_path_factory, numbers, random):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "randbelow", lambda below: random % below)
        chain = world(secure_sum, numbers, tmp_path_factory.mktemp("scratch"))
        assert chain.call("Beta", "chain", {}) == sum(numbers)
    ring = list(chain.data)
    partial_sums = [(random + sum(numbers[: place + 1])) % MODULUS for place in range(len(numbers))]
    assert chain.passed_on == [
        *((ring[place], ring[(place + 1) % len(ring)], partial_sums[place]) for place in range(len(ring))),
        *((ring[0], receiver, sum(numbers)) for receiver in ring),
    ]


def test_mask_is_uniform_and_fresh(monkeypatch, tmp_path):
    asked: list[int] = []

    def five(below: int) -> int:
        asked.append(below)
        return 5

    monkeypatch.setattr(secrets, "randbelow", five)
    one = world(secure_sum, [3, 1, 1], tmp_path)
    assert one.call("Alpha", "mask", {}) == 8
    assert one.run_siblings("ring")["Beta"] == 5
    assert asked == [2**64, 2**64]


def test_ring_of_two_hides_nothing_and_is_refused(tmp_path):
    two = world(secure_sum, [3, 4], tmp_path)
    for function in ("ring", "chain"):
        with pytest.raises(ValueError, match="at least three organizations, not 2"):
            two.call("Alpha", function, {})
