import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.data import spill as spills
from genba.data.spill import Spill

TIMES = st.lists(st.lists(st.integers(-50, 50), min_size=1, max_size=30), max_size=8)


def pieces(
    batches: Sequence[Sequence[int]], rows: int, run_rows: int, stops: Sequence[int] = ()
) -> list[list[tuple[int, int]]]:
    """Return (time, row) of each piece, sorted inside."""
    number = 0
    with TemporaryDirectory() as folder, Spill(Path(folder), run_rows=run_rows) as spill:
        for times in batches:
            row = range(number, number + len(times))
            spill.add(
                pl.DataFrame({"time": list(times), "row": row}, schema_overrides={"row": pl.Int64})
            )
            number += len(times)
        found = [sorted(p.iter_rows()) for p in spill.pieces(rows=rows, stops=stops)]
        assert spill.rows == number
    return found


@given(batches=TIMES, rows=st.integers(1, 40), run_rows=st.integers(1, 60))
def test_pieces_hold_every_row_once_in_the_order_of_time(
    batches: list[list[int]], rows: int, run_rows: int
) -> None:
    found = pieces(batches, rows, run_rows)
    everything = sorted((t, r) for r, t in enumerate(t for batch in batches for t in batch))
    assert [row for piece in found for row in piece] == everything
    for before, after in zip(found, found[1:], strict=False):
        assert before[-1][0] < after[0][0]  # a moment is never in two pieces
        assert len(before) >= rows


@given(batches=TIMES, rows=st.integers(1, 40), run_rows=st.integers(1, 60))
def test_how_rows_are_held_does_not_change_the_pieces(
    batches: list[list[int]], rows: int, run_rows: int
) -> None:
    together = [[t for batch in batches for t in batch]] if batches else []
    assert pieces(batches, rows, run_rows) == pieces(together, rows, 10**6)


@given(
    old=TIMES,
    new=st.lists(st.integers(51, 99), max_size=40),
    rows=st.integers(1, 40),
    run_rows=st.integers(1, 60),
)
def test_rows_added_behind_a_stop_leave_earlier_pieces_alone(
    old: list[list[int]], new: list[int], rows: int, run_rows: int
) -> None:
    before = pieces(old, rows, run_rows)
    after = pieces([*old, new] if new else old, rows, run_rows, stops=[51])
    assert after[: len(before)] == before


def test_small_batches_on_disk_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spills, "_BATCH_ROWS", 7)
    chance = np.random.default_rng(1)
    times = [chance.integers(0, 1000, 100).tolist() for _ in range(20)]
    found = pieces(times, 150, 100)
    assert sum(map(len, found)) == 2000
    assert found == pieces(times, 150, 10**6)


def test_runs_are_written_only_when_needed_and_removed(tmp_path: Path) -> None:
    with Spill(tmp_path, run_rows=10) as spill:
        spill.add(pl.DataFrame({"time": [1, 2]}))
        spill.add(pl.DataFrame({"time": []}, schema={"time": pl.Int64}))
        assert not list(tmp_path.iterdir())
        spill.add(pl.DataFrame({"time": range(20)}))
        assert spill.spilled_bytes > 0
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_what_a_dead_process_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, young = tmp_path / "spill-old", tmp_path / "spill-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "0.arrow").write_bytes(b"rows")
    os.utime(old, (0, 0))
    with Spill(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["spill-young"]


def test_quantiles_are_exact_in_memory_and_near_on_disk(tmp_path: Path) -> None:
    times = np.random.default_rng(2).permutation(10_000)
    with Spill(tmp_path) as spill:
        spill.add(pl.DataFrame({"time": times}))
        assert [spill.quantile(share) for share in (0.0, 0.6, 0.8)] == [0, 6000, 8000]
        assert spill.quantile(0.5, since=9000) == 9500
        assert spill.last == 9999
    with Spill(tmp_path, run_rows=1000) as spill:
        for part in np.split(times, 20):
            spill.add(pl.DataFrame({"time": part}))
        assert abs(spill.quantile(0.8) - 8000) <= 64 * 10
