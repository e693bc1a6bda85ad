"""Tables that a package keeps as pickled pandas frames, read without unpickling anything.

A pickle is a program, and unpickling runs it. Here its instructions are only listed (`pickletools`
is a disassembler) and followed on paper: a call becomes a note of what would have been called with
what. In the end the notes must describe a frame of plain numbers, block by block; whatever else is
there is refused. No class is looked up, nothing is imported, nothing is called.
"""

import lzma
import pickletools
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.core import io
from genba.core.problem import Problem

_LARGEST: Final = 64 << 20  # bytes of an unpacked frame
_KINDS: Final = {"f8": "<f8", "i8": "<i8", "f4": "<f4", "i4": "<i4"}
_MARK: Final = object()

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameClock:
    """The clock of a table that has none of its own: evenly spaced from a stated moment."""

    column: str
    start: str  # ISO 8601 with an offset
    step_s: int


@dataclass(slots=True)
class Note:
    """A call that a pickle asks for, written down instead of made."""

    what: Any
    given: Any
    state: Any = None


def converted(path: Path, columns: tuple[str, ...], clock: FrameClock) -> Path:
    """Return the frame as CSV with a time column, written beside it once.

    Args:
        path: Of the pickled frame, packed with xz; the caller has checked its digest.
        columns: To take, in this order.
        clock: Of the rows.

    Raises:
        Problem: G222 when the file is no frame of plain numbers with these columns.
    """
    place = path.with_suffix(".csv")
    if place.is_file():
        return place
    table = read_frame(path.read_bytes(), str(path))
    missing = [name for name in columns if name not in table]
    if missing:
        raise _refused(str(path), f"it has no column {missing[0]}")
    rows = len(table[columns[0]])
    start, step = datetime.fromisoformat(clock.start), timedelta(seconds=clock.step_s)
    times = [(start + k * step).isoformat() for k in range(rows)]
    frame = pl.DataFrame({clock.column: times, **{name: table[name] for name in columns}})
    io.write_durable(place, frame.write_csv().encode())
    return place


def read_frame(packed: bytes, where: str) -> dict[str, Array]:
    """Return the numeric columns of a pickled frame.

    Args:
        packed: The file, packed with xz.
        where: Its name, for error messages.

    Raises:
        Problem: G222 when it is anything but a frame of plain numbers.
    """
    try:
        unpacker = lzma.LZMADecompressor()
        data = unpacker.decompress(packed, max_length=_LARGEST)
        if not unpacker.eof:
            raise _refused(where, f"it is larger than {_LARGEST >> 20} MiB or cut short")
        return _columns(_followed(data))
    except (lzma.LZMAError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _refused(where, f"{type(error).__name__}: {error}") from error


def _columns(frame: Any) -> dict[str, Array]:
    """Return the blocks of a noted frame by the names of its columns."""
    manager = frame.state["_mgr"]
    blocks, axes = manager.given
    names = list(axes[0].given[1]["data"].state[4])
    found: dict[str, Array] = {}
    for block in blocks:
        values, placement, _ = block.given
        data, kind, shape, _ = values.given
        numbers = np.frombuffer(data, dtype=_KINDS[kind.given[0]]).reshape(shape)
        for row, place in zip(numbers, range(*placement.given), strict=True):
            found[str(names[place])] = row
    return found


def _followed(data: bytes) -> Any:
    """Follow the instructions of a pickle on paper and return the note it ends with."""
    paper = _Paper()
    for instruction, argument, _ in pickletools.genops(data):
        paper.follow(instruction.name, argument)
        if instruction.name == "STOP":
            break
    return paper.stack[-1]


class _Paper:
    """The stack and the memory of a pickle, holding notes and plain data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: list[Any] = []

    def follow(self, name: str, argument: Any) -> None:
        """Follow one instruction; those that no frame of numbers needs are refused."""
        if name in _PLAIN:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        else:
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise ValueError(f"the instruction {name} is not expected in a table")
            step(argument)

    def _proto(self, _: Any) -> None:
        """A header says nothing about the table."""

    _frame = _stop = _proto

    def _memoize(self, _: Any) -> None:
        self.memory.append(self.stack[-1])

    def _binget(self, place: int) -> None:
        self.stack.append(self.memory[place])

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(f"{module}.{name}")

    def _reduce(self, _: Any) -> None:
        given, what = self.stack.pop(), self.stack.pop()
        self.stack.append(Note(what, given))

    _newobj = _reduce

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        self.stack[-1].state = state

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def _tuple1(self, _: Any) -> None:
        self._last(1)

    def _tuple2(self, _: Any) -> None:
        self._last(2)

    def _tuple3(self, _: Any) -> None:
        self._last(3)

    def _last(self, count: int) -> None:
        taken = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(taken)

    def _appends(self, _: Any) -> None:
        rows = self._marked()
        self.stack[-1].extend(rows)

    def _append(self, _: Any) -> None:
        row = self.stack.pop()
        self.stack[-1].append(row)

    def _setitems(self, _: Any) -> None:
        pairs = self._marked()
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def _marked(self) -> list[Any]:
        taken: list[Any] = []
        while (top := self.stack.pop()) is not _MARK:
            taken.append(top)
        return taken[::-1]


_PLAIN: Final = frozenset(
    {
        *("SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2", "BINFLOAT"),
        *("BYTEARRAY8", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES"),
    }
)
_CONSTANTS: Final[dict[str, Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": lambda: _MARK,
}


def _refused(where: str, why: str) -> Problem:
    return Problem(
        "G222",
        f"{where} is no table of plain numbers.",
        where=where,
        why=f"Read without running it, {why}.",
        tries=[f"rm -f {where}", "run again", "genba explain G222"],
    )
