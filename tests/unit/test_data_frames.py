"""Pickled tables read without unpickling."""

import lzma
import os
import pickle  # noqa: TID251  # to write what must never be run
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.core.problem import Problem
from genba.data.sources.frames import FrameClock, converted, read_frame


class _Called:
    """What pickles as a call of a function that is not installed here."""

    def __init__(self, function: Any, *given: Any, state: Any = None) -> None:
        self.function, self.given, self.state = function, given, state

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.function, self.given)
        return parts if self.state is None else (*parts, self.state)


@pytest.fixture
def frame(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return a frame as pandas writes it; pandas itself is not needed."""

    def stub(module: str, name: str) -> Any:
        owner = sys.modules.get(module) or types.ModuleType(module)
        monkeypatch.setitem(sys.modules, module, owner)
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = module, name
        monkeypatch.setattr(owner, name, function, raising=False)
        return function

    buffer = stub("numpy_like_numeric", "_frombuffer")
    dtype = stub("numpy_like", "dtype")
    block_of = stub("pandas_like_internals", "_unpickle_block")
    manager_of = stub("pandas_like_managers", "BlockManager")
    index_of = stub("pandas_like_indexes", "_new_Index")
    rebuilt = stub("numpy_like_multiarray", "_reconstruct")
    table = stub("pandas_like_frame", "DataFrame")

    def block(values: Any, kind: str, start: int) -> _Called:
        type_of = _Called(dtype, kind, False, True, state=(3, "<", None))
        numbers = _Called(buffer, bytearray(values.tobytes()), type_of, values.shape, "C")
        return _Called(block_of, numbers, _Called(slice, start, 4, 2), 2)

    names = _Called(rebuilt, state=(1, (3,), None, False, ["n", "Demand", "WorkDay"]))
    axis = _Called(index_of, "Index", {"data": names, "name": None})
    whole = block(np.array([[1, 2], [0, 1]]), "i8", 0)
    parts = block(np.array([[3.5, 4.25]]), "f8", 1)
    parts.given[1].given = (1, 2, 1)
    manager = _Called(manager_of, (parts, whole), [axis])
    made = _Called(table, state={"_mgr": manager, "attrs": {}})
    return lzma.compress(pickle.dumps(made, protocol=5))


def test_columns_are_found_block_by_block(frame: bytes) -> None:
    found = read_frame(frame, "here")
    assert {name: column.tolist() for name, column in found.items()} == {
        "Demand": [3.5, 4.25],
        "n": [1, 2],
        "WorkDay": [0, 1],
    }


def test_a_frame_becomes_a_table_with_a_clock(frame: bytes, tmp_path: Path) -> None:
    path = tmp_path / "frame.pkl"
    path.write_bytes(frame)
    clock = FrameClock(column="time", start="2014-01-01T00:00:00+10:00", step_s=1_800)
    place = converted(path, ("Demand", "WorkDay"), clock)
    table = pl.read_csv(place)
    assert table.columns == ["time", "Demand", "WorkDay"]
    assert table["time"].to_list()[1] == "2014-01-01T00:30:00+10:00"
    assert converted(path, ("nothing",), clock) == place  # made once
    place.unlink()
    with pytest.raises(Problem, match="no column|no table") as refused:
        converted(path, ("nothing",), clock)
    assert refused.value.code == "G222"


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    "content",
    [
        lzma.compress(pickle.dumps(_Harm(), protocol=5)),
        lzma.compress(pickle.dumps({"a": 1.5}, protocol=0)),
        lzma.compress(pickle.dumps([1, 2], protocol=5)),
        lzma.compress(b"no pickle at all"),
        lzma.compress(b""),
        b"not packed",
        lzma.compress(bytes(1_000))[:-20],
    ],
)
def test_anything_else_is_refused_and_nothing_runs(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Problem) as refused:
        read_frame(content, "here")
    assert refused.value.code == "G222"
    assert not list(tmp_path.iterdir())
