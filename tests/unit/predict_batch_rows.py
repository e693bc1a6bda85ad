"""A home with a line of pumps, rows to ask it about, and the command that does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.store.home import Store
from genba.testing.serving import place, small_package
from genba.ui.cli import predict_batch_rows
from genba.ui.cli.predict_batch_rows import Rows
from tests.unit.test_cli_predict import PUMP, add_line

SETTINGS = {"sensors": ["a", "b", "c", "d"], "outputs": ["d"], "lags": 3, "context": 2}
SETTINGS |= {"step_ms": 1_800_000, "has_clock": True}
FIRST_MS = 1_767_225_600_000


def pump_home(home: Path) -> Store:
    """Return a store with the line in service."""
    store = Store.open(home)
    add_line(store, PUMP)
    place(store, "pump", "deploy", small_package(store, "pump", settings=SETTINGS))
    return store


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make parts of seven rows and requests of three."""
    monkeypatch.setattr(Rows.__init__, "__kwdefaults__", {"part_rows": 7})
    monkeypatch.setattr(predict_batch_rows, "REQUEST_ROWS", 3)


def rows_of_pumps(count: int, pumps: int = 3, seed: int = 1) -> pl.DataFrame:
    chance = np.random.default_rng(seed)
    index = np.arange(count)
    times = pl.Series("time", FIRST_MS + index // pumps * 1_800_000).cast(pl.Datetime("ms"))
    readings = {c: chance.normal(size=count) * 3 for c in "abcd"}
    return pl.DataFrame({"time": times, "pump": [f"R{i % pumps}" for i in index], **readings})


def write(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        text = frame.with_columns(pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        text.write_ndjson(path)
    else:
        frame.write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    return path


def batch(path: Path, to: Path, *more: str) -> tuple[str, ...]:
    return (
        *("predict", "pump", "--input", str(path), "--local", "stable"),
        *("--batch", "--to", str(to), *more),
    )


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pl.read_parquet(path).to_dicts()
    return [json.loads(line) for line in path.read_text().splitlines()]
