"""Rows as views: the generated bearings, and sets in the layout of C-MAPSS."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from genba.core.line import Data, Line
from genba.core.linefile import load_line
from genba.data.sources.bearings import COLUMNS
from genba.data.sources.files import FileSource
from genba.data.sources.generated import GeneratedSource
from genba.data.splits import deal_entities
from genba.learn.rows import RowsView

_JUDGED_SEED: Final = 10
ROOT: Final = Path(__file__).parents[2]


def bearings(seed: int, judged: int) -> RowsView:
    """Return a fleet of 120 generated bearings to learn from, and another one to be judged on.

    Args:
        seed: Of the fleet to learn from: 96 bearings, split as `lines/bearings.toml` splits them
            into training and calibration; the 24 it would test on are left out.
        judged: How many bearings the other fleet has.
    """
    line = load_line(ROOT / "lines" / "bearings.toml", ())
    line = replace(line, data=replace(line.data, inputs=COLUMNS))
    known, other = _fleet(line, 120, seed), _fleet(line, judged, _JUDGED_SEED)
    dealt = deal_entities(sorted(known["bearing"].unique()), line.data.split, line.train.seed)
    split = {name: place for name, place in dealt.items() if place != "test"}
    known = known.filter(pl.col("bearing").is_in(list(split)))
    split |= dict.fromkeys(other["bearing"].unique(), "test")
    return view_of(line, pl.concat([known, other]), split)


def _fleet(line: Line, units: int, seed: int) -> pl.DataFrame:
    source = GeneratedSource(f"bearings?units={units}&seed={seed}", line.data)
    return pl.concat([pl.DataFrame(batch) for batch, _ in source.batches()])


def view_of(line: Line, frame: pl.DataFrame, split: dict[str, str]) -> RowsView:
    """Return rows as a view; the splits are given by unit."""
    unit, time = str(line.data.entity), str(line.data.time)
    names = sorted(frame[unit].unique())
    codes = {name: place for place, name in enumerate(names)}
    columns: dict[str, Any] = {
        "entity": frame[unit].replace_strict(codes).to_numpy(),
        "time": frame[time].cast(pl.Int64).to_numpy(),
        "label": np.full(len(frame), np.nan),
        "split": frame[unit].replace_strict(split).to_numpy(),
    }
    for name in line.data.inputs:
        columns[name] = frame[name].fill_null(float("nan")).to_numpy()
    return RowsView(line, columns, tuple(names), has_clock=False)


def table(path: Path, prefix: str) -> pl.DataFrame:
    """Return a text file of 26 unnamed columns; units get a prefix."""
    data = Data(source=f"files:{path}", entity="column_1", time="column_2")
    batches = [pl.DataFrame(batch) for batch, _ in FileSource(str(path), data).batches()]
    return pl.concat(batches).with_columns(
        pl.format("{}{}", pl.lit(prefix), "column_1").alias("column_1")
    )
