"""Alignment by time: every value put into a row is compared with a search through all readings."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.core.joins import clock_of, joined_of
from genba.core.line import Data, Join
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, SourceFacts
from genba.data.fusion import side as side_module
from genba.data.fusion.reading import Reading
from genba.runs.progress import SilentProgress

NAN = float("nan")
#: (second, machine, value), in the order of the file; NaN = not read.
Row = tuple[int, str, float]


class Told(SilentProgress):
    """Remembers what stays on the screen."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Rows:
    """A source of rows in memory, in batches of `size`."""

    def __init__(self, columns: dict[str, list[Any]], size: int = 7) -> None:
        self.columns, self.size = columns, size

    def facts(self) -> SourceFacts:
        return SourceFacts(fingerprint="f", location="rows", bytes=0)

    def batches(self, cursor: JsonObject | None = None) -> Any:
        table = pa.table(self.columns)
        start = int(cursor["row"]) if cursor else 0
        for at in range(start, table.num_rows, self.size):
            batch = table.slice(at, self.size).combine_chunks().to_batches()[0]
            yield batch, {"row": at + batch.num_rows}


def moments(rows: Sequence[Row]) -> list[str]:
    return [str(np.datetime64(1_700_000_000 + second, "s")) + "Z" for second, _, _ in rows]


def columns(rows: Sequence[Row], value: str = "x", machine: str | None = "m") -> dict[str, Any]:
    made = {"t": moments(rows), value: [v for *_, v in rows]}
    return {**made, machine: [m for _, m, _ in rows]} if machine else made


def data(within: float, *inputs: str, entity: str | None = "m", **changes: Any) -> Data:
    fields = {"source": "files:a", "time": "t", "entity": entity, "inputs": ("flow", *inputs)}
    join = {"plc": Join(source="files:b", within_s=within)}
    return Data(**{**fields, "join": join, **changes})


def read(
    base: dict[str, Any], other: dict[str, Any], table: Data, progress: Told | None = None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    reading = Reading(Rows(base), table, lambda *_: Rows(other), None, progress or Told())
    frames = [pl.DataFrame(batch) for batch, _ in reading.batches(None)]
    return pl.concat(frames), reading.summary()["plc"]


def searched(rows: Sequence[Row], others: Sequence[Row], within: int, mean: bool) -> list[float]:
    """What each row should get, by looking at every reading; the first of a moment counts."""
    known: dict[tuple[str, int], float] = {}
    for second, machine, value in others:
        known.setdefault((machine, second), value)
    found = []
    for now, machine, _ in rows:
        mine = sorted((t, v) for (m, t), v in known.items() if m == machine and v == v and t <= now)
        recent = [v for t, v in mine if (now - t < within if mean else now - t <= within)]
        found.append((float(np.mean(recent)) if mean else recent[-1]) if recent else NAN)
    return found


ROWS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.integers(0, 9).map(float)),
    min_size=1,
    max_size=40,
)
VALUES = st.one_of(st.integers(-99, 99).map(float), st.just(NAN))
OTHERS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from("abc"), VALUES), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, others=OTHERS, within=st.integers(1, 30), piece=st.sampled_from([3, 10, 1_000]))
def test_every_value_is_the_one_that_a_search_finds(
    rows: list[Row], others: list[Row], within: int, piece: int
) -> None:
    # Rows in any order, moments read twice, values not read, machines that only one side has.
    table = data(within, "plc.x", "plc.x:mean")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_module, "PIECE_ROWS", piece)
        patch.setattr("genba.data.fusion.tally.FEWEST", 0.0)
        frame, summary = read(columns(rows, "flow"), columns(others), table)
    last, mean = (searched(rows, others, within, kind) for kind in (False, True))
    np.testing.assert_array_equal(frame["plc.x"].fill_null(NAN).to_numpy(), last)
    np.testing.assert_allclose(frame["plc.x:mean"].fill_null(NAN).to_numpy(), mean, atol=1e-9)
    assert summary["found"] == np.count_nonzero(np.isfinite(last) | np.isfinite(mean))
    assert summary["found"] + sum(summary["missing"].values()) == summary["rows"] == len(rows)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, others=OTHERS, later=OTHERS)
def test_what_is_read_later_changes_nothing(
    rows: list[Row], others: list[Row], later: list[Row]
) -> None:
    # No leak from the future: readings behind the newest row leave every value as it was.
    end = max(second for second, *_ in rows)
    future = [(end + 1 + second, machine, value) for second, machine, value in later]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_module, "PIECE_ROWS", 5)
        patch.setattr("genba.data.fusion.tally.FEWEST", 0.0)
        table = data(10, "plc.x", "plc.x:mean")
        before, _ = read(columns(rows, "flow"), columns(others), table)
        after, _ = read(columns(rows, "flow"), columns([*future, *others]), table)
    assert before["plc.x"].equals(after["plc.x"], null_equal=True)
    mean = [frame["plc.x:mean"].fill_null(NAN).to_numpy() for frame in (before, after)]
    np.testing.assert_allclose(mean[0], mean[1], atol=1e-9)


def test_a_source_without_the_machine_column_is_for_every_machine() -> None:
    rows = [(10, "a", 1.0), (10, "b", 1.0), (70, "a", 1.0)]
    weather = columns([(5, "", 20.0), (65, "", 21.0)], "warm", None)
    frame, summary = read(columns(rows, "flow"), weather, data(60, "plc.warm"))
    assert frame["plc.warm"].to_list() == [20.0, 20.0, 21.0]
    assert not summary["per_machine"]


def test_each_column_has_its_own_newest_value() -> None:
    # Historians write a value when it changes; the columns of a row are seldom all there.
    other = {"t": moments([(0, "", 0), (5, "", 0), (9, "", 0)]), "x": [1.0, NAN, NAN]}
    frame, summary = read(
        columns([(10, "", 0.0)], "flow", None),
        {**other, "y": [NAN, 2.0, NAN]},
        data(20, "plc.x", "plc.y", entity=None),
    )
    assert (frame["plc.x"][0], frame["plc.y"][0]) == (1.0, 2.0)
    assert summary["age_s_p50"] == pytest.approx(5.0, rel=0.01)  # of the newest that was used


def test_a_mean_stays_exact_where_values_are_large_and_many() -> None:
    chance = np.random.default_rng(0)
    seconds = np.arange(5_000)
    values = 1e6 + chance.normal(0, 1e-3, len(seconds))
    others = [(int(s), "", float(v)) for s, v in zip(seconds, values, strict=True)]
    frame, _ = read(
        columns([(4_999, "", 0.0)], "flow", None),
        columns(others, "x", None),
        data(10, "plc.x:mean", entity=None),
    )
    assert frame["plc.x:mean"][0] == pytest.approx(values[-10:].mean(), abs=1e-7)


def test_open_inputs_take_every_numeric_column_but_answers() -> None:
    other = {**columns([(0, "a", 1.0)]), "label": [1.0], "word": ["on"], "y": [3.0]}
    table = data(60, inputs=())
    frame, _ = read(columns([(1, "a", 1.0)], "flow"), other, table)
    assert [name for name in frame.columns if "." in name] == ["plc.x", "plc.y"]


def test_rows_that_the_line_does_not_ask_for_are_not_counted() -> None:
    rows = [(0, "a", 1.0), (100, "a", 1.0), (100, "b", 1.0), (200, "a", 1.0)]
    table = data(
        60,
        "plc.x",
        since="2023-11-14T22:14:20Z",  # 60 s behind the first row
        until="2023-11-14T22:16:00Z",
        entities=("a",),
    )
    _, summary = read(columns(rows, "flow"), columns([(90, "a", 1.0), (90, "b", 1.0)]), table)
    assert (summary["rows"], summary["found"]) == (1, 1)


def test_what_is_missing_is_counted_with_its_reason() -> None:
    rows = [(s, "a", 1.0) for s in (0, 20, 45, 300)] + [(20, "z", 1.0)]
    others = [(10, "a", 1.0), (100, "a", 1.0)]
    told = Told()
    _, summary = read(columns(rows, "flow"), columns(others), data(15, "plc.x"), told)
    assert summary["missing"] == {
        "nothing was read yet": 1,
        "the newest value was too old": 1,
        "the source had ended": 1,
        "the source does not have the machine": 1,
    }
    assert told.notes[0].startswith("plc: 20.0 % of 5 rows found a value, p50 10 s")
    assert (summary["source"]["step_ms"], summary["source"]["rows"]) == (90_000, 2)


def test_repeated_moments_and_rows_without_a_time_are_counted() -> None:
    others = [(0, "a", 1.0), (0, "a", 1.0), (0, "a", 2.0), (5, "a", 3.0)]
    made = columns(others)
    made["t"][3] = "soon"
    frame, summary = read(columns([(9, "a", 1.0)], "flow"), made, data(60, "plc.x"))
    source = summary["source"]
    assert frame["plc.x"].to_list() == [1.0]  # the first of a moment, as for the rows themselves
    assert (source["same_moment"], source["same_moment_different"]) == (2, 1)
    assert (source["rows"], source["unreadable"]) == (4, 1)


def test_a_clock_that_is_ahead_is_put_right() -> None:
    others = columns([(3600, "a", 1.0), (3660, "a", 2.0)])
    rows = columns([(0, "a", 1.0), (61, "a", 1.0)], "flow")
    join = {"plc": Join(source="files:b", within_s=30, time="t +01:00")}
    frame, summary = read(rows, others, data(30, "plc.x", join=join))
    assert frame["plc.x"].to_list() == [1.0, 2.0]
    assert summary["source"]["clock_ahead_ms"] == 3_600_000


def refused(base: dict[str, Any], other: dict[str, Any], table: Data) -> Problem:
    with pytest.raises(Problem) as caught:
        read(base, other, table)
    return caught.value


def test_a_tolerance_shorter_than_the_step_is_explained_with_numbers() -> None:
    rows = columns([(s, "a", 1.0) for s in range(30, 3_000, 60)], "flow")
    others = columns([(s, "a", 1.0) for s in range(0, 3_000, 60)])
    problem = refused(rows, others, data(5, "plc.x"))
    assert problem.code == "G223"
    assert problem.why.startswith("It has a row every 60 s, so with 5 s at most 8% of the rows")
    assert problem.tries[0] == "within_s = 120"


def test_a_clock_that_is_years_off_is_explained_and_the_remedy_works() -> None:
    rows = columns([(s, "a", 1.0) for s in range(0, 600, 10)], "flow")
    away = 3 * 365 * 86_400
    others = columns([(s - away, "a", 1.0) for s in range(0, 600, 10)])
    problem = refused(rows, others, data(15, "plc.x"))
    assert problem.code == "G223"
    assert "its clock is 94,608,000 s behind" in problem.why
    assert problem.tries[0] == 'time = "t -26280:00"'
    join = {"plc": Join(source="files:b", within_s=15, time="t -26280:00")}
    frame, _ = read(rows, others, data(15, "plc.x", join=join))
    assert frame["plc.x"].null_count() == 0


def test_other_names_of_the_machines_and_old_values_are_explained() -> None:
    rows = columns([(s, "a", 1.0) for s in range(100)], "flow")
    others = [(s, "A", 1.0) for s in range(100)]
    assert "called otherwise: A." in refused(rows, columns(others), data(5, "plc.x")).why
    sparse = columns([(s, "a", 1.0) for s in (0, 1, 2, 2_000)])
    why = refused(
        columns([(s, "a", 1.0) for s in range(50, 900)], "flow"), sparse, data(5, "plc.x")
    )
    assert "850 rows: the newest value was too old" in why.why


def test_several_machines_without_a_column_for_them_are_refused() -> None:
    others = {
        "t": moments([(s // 2, "", 0) for s in range(40)]),
        "x": [float(s) for s in range(40)],
    }
    problem = refused(columns([(9, "a", 1.0)], "flow"), others, data(60, "plc.x"))
    assert problem.code == "G224"
    assert "20 of its rows (50%)" in problem.why


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"ts": ["2026-01-01"], "x": [1.0]}, "has no column 't'"),
        ({"t": ["2023-11-14T22:13:20Z"], "y": [1.0]}, "has no column 'x'"),
        ({"t": ["on", "off"], "x": [1.0, 2.0]}, "does not hold times"),
        ({"t": [1, 2, 3], "x": [1.0, 2.0, 3.0]}, "counts; it holds no times"),
    ],
)
def test_a_source_that_cannot_be_read_by_time(other: dict[str, Any], words: str) -> None:
    problem = refused(columns([(9, "a", 1.0)], "flow"), other, data(60, "plc.x"))
    assert problem.code == "G221"
    assert words in problem.what
    assert problem.where == "data.join.plc"


def test_a_source_without_rows_or_of_the_same_name_is_refused() -> None:
    base = columns([(9, "a", 1.0)], "flow")
    empty = {"t": ["2023-11-14T22:13:20Z"], "m": [None], "x": [1.0]}
    assert refused(base, empty, data(60, "plc.x")).code == "G202"
    assert refused(base, {"t": [], "x": []}, data(60, "plc.x")).code == "G202"
    taken = {**base, "plc.x": [1.0]}
    assert refused(taken, columns([(9, "a", 1.0)]), data(60, "plc.x")).code == "G218"
    counted = {**base, "t": [1]}
    assert refused(counted, columns([(9, "a", 1.0)]), data(60, "plc.x")).code == "G218"
    assert refused(base, columns([(9, "a", 1.0)]), data(60)).what.startswith("No input comes from")


def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    rows = columns([(9, "a", 1.0)], "flow")
    table = data(60, "plc.x")
    reading = Reading(
        Rows(rows), table, lambda *_: Rows(columns([(9, "a", 1.0)])), tmp_path, Told()
    )
    batches: Any = reading.batches(None)
    next(batches)
    assert list(tmp_path.iterdir())
    batches.close()  # as when a run is interrupted
    assert not list(tmp_path.iterdir())


def test_a_cursor_goes_on_behind_its_batch() -> None:
    rows = [(s, "a", 1.0) for s in range(20)]
    table, other = data(60, "plc.x"), columns([(s, "a", float(s)) for s in range(20)])

    def batches(cursor: JsonObject | None) -> list[tuple[pa.RecordBatch, JsonObject]]:
        base = Rows(columns(rows, "flow"))
        return list(Reading(base, table, lambda *_: Rows(other), None, Told()).batches(cursor))

    whole = batches(None)
    rest = batches(whole[0][1])
    assert [b.to_pylist() for b, _ in rest] == [b.to_pylist() for b, _ in whole[1:]]


def test_names_and_clocks() -> None:
    joins = {"plc": Join(source="files:b", within_s=1)}
    assert joined_of("other.x", joins) is None
    assert clock_of("ts -00:00:07") == ("ts", -7_000)
    with pytest.raises(Problem) as caught:
        joined_of("plc.x:meen", joins)
    assert caught.value.tries[0] == 'inputs = ["plc.x:mean"]'


def test_memory_does_not_grow_with_the_tolerance() -> None:
    # However long the tolerance, a look-up holds two pieces.
    chance = np.random.default_rng(1)
    others = [(s, "", float(chance.normal())) for s in range(4_000)]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(side_module, "PIECE_ROWS", 100)
        table = data(3_000, "plc.x:mean", entity=None)
        base, other = columns([(3_999, "", 0.0)], "flow", None), columns(others, "x", None)
        reading = Reading(Rows(base), table, lambda *_: Rows(other), Path(folder), Told())
        (batch, _), *_ = list(reading.batches(None))
        pieces = reading._tallies[0].side.pieces
        assert pieces is not None
        assert len(pieces._held) <= 2
    values = [v for *_, v in others[-3_000:]]
    assert batch["plc.x:mean"][0].as_py() == pytest.approx(float(np.mean(values)), abs=1e-12)
