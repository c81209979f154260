"""Batches held back until there are enough rows: either that many, or nothing and no count."""

import pyarrow as pa
import pytest

from folkmoot.node.data.filters import Refused
from folkmoot.node.data.streams import at_least


def batches(*rows: int) -> list[pa.RecordBatch]:
    return [pa.record_batch({"x": range(count)}) for count in rows]


@pytest.mark.parametrize(("rows", "minimum"), [((3,), 3), ((1, 0, 2), 3), ((5, 5), 3), ((), 0), ((0,), 0), ((2,), 0)])
def test_enough_rows_are_given_whole(rows, minimum):
    assert [batch.num_rows for batch in at_least(batches(*rows), minimum)] == list(rows)


@pytest.mark.parametrize(("rows", "minimum"), [((), 1), ((0, 0), 1), ((1, 1), 3), ((99,), 100)])
def test_too_few_rows_are_refused_before_one_is_given_and_not_counted(rows, minimum):
    with pytest.raises(Refused) as refused:
        at_least(batches(*rows), minimum)
    assert refused.value.reason == "TOO_FEW_ROWS"
    assert str(minimum) in str(refused.value)
    assert str(sum(rows)) not in str(refused.value).replace(str(minimum), "")


def test_no_more_is_held_than_the_minimum_takes():
    given = iter(batches(2, 2, 2))
    at_least(given, 3)
    assert len(list(given)) == 1
