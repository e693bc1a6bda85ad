"""Turn a torch file of the old kind into safetensors without torch and without unpickling it.

A script for a process of its own: `python -I -S disassemble.py FROM TO`, standard library only.
The old kind (torch before 1.6, and `_use_new_zipfile_serialization=False`) is five pickles in a
row (magic number, version, machine, the object, the keys of its storages), then per storage its
length and its bytes. The pickles are taken apart with `pickletools.genops`, which executes
nothing: the few instructions a table of tensors consists of are followed as data, every other one
is refused. What a file may cost is limited before it is opened.
"""

import json
import math
import os
import pickletools
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

REFUSED: Final = 3  # exit status: the file is not what it should be

_MIB: Final = 1 << 20
#: (what, most): memory, processor seconds, size of a written file, open files, core dumps.
_LIMITS: Final = (
    (resource.RLIMIT_AS, 512 * _MIB),
    (resource.RLIMIT_CPU, 30),
    (resource.RLIMIT_FSIZE, 256 * _MIB),
    (resource.RLIMIT_NOFILE, 16),
    (resource.RLIMIT_CORE, 0),
)
_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_MOST_INSTRUCTIONS: Final = 200_000
_TABLE: Final = "collections OrderedDict"
_REBUILD: Final = "torch._utils _rebuild_tensor_v2"
#: Kind of storage -> safetensors name of its numbers and their bytes.
_KINDS: Final = {
    "torch FloatStorage": ("F32", 4),
    "torch DoubleStorage": ("F64", 8),
    "torch HalfStorage": ("F16", 2),
    "torch LongStorage": ("I64", 8),
}
_KNOWN: Final = frozenset({_TABLE, _REBUILD, *_KINDS})


class Refused(Exception):
    """The file is not a plain table of tensors; the text says why."""


class Name(NamedTuple):
    """A name the file wants imported. It never is."""

    path: str


class Storage(NamedTuple):
    """A run of numbers in the file."""

    kind: str
    key: str
    numbers: int


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Mark:
    """Where a tuple, list or dictionary begins on the stack."""


class Machine:
    """Follows the instructions of one pickle on a stack of plain values."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda _: None,
            "STOP": lambda _: None,
            "MARK": lambda _: self._push(_Mark()),
            "NONE": lambda _: self._push(None),
            "NEWTRUE": lambda _: self._push(True),
            "NEWFALSE": lambda _: self._push(False),
            "EMPTY_TUPLE": lambda _: self._push(()),
            "EMPTY_DICT": lambda _: self._push({}),
            "EMPTY_LIST": lambda _: self._push([]),
            "TUPLE": lambda _: self._push(tuple(self._since_mark())),
            "TUPLE1": lambda _: self._push(tuple(self._take(1))),
            "TUPLE2": lambda _: self._push(tuple(self._take(2))),
            "TUPLE3": lambda _: self._push(tuple(self._take(3))),
            "SETITEM": lambda _: self._set_items(self._take(2)),
            "SETITEMS": lambda _: self._set_items(self._since_mark()),
            "APPENDS": lambda _: self._append(self._since_mark()),
            "GLOBAL": self._name,
            "BINPERSID": self._storage,
            "REDUCE": self._rebuild,
            "BUILD": self._drop,  # attributes of the table: the versions of its modules
        }
        self.steps |= dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), self._push)
        self.steps |= dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), self._push)
        self.steps |= dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._remember)
        self.steps |= dict.fromkeys(("BINGET", "LONG_BINGET"), self._recall)

    def run(self, file: BinaryIO) -> Any:
        """Return the value of the pickle at the file's position."""
        for count, (code, argument, position) in enumerate(pickletools.genops(file)):
            step = self.steps.get(code.name)
            if step is None:
                raise Refused(f"the instruction {code.name} at byte {position}")
            if count > _MOST_INSTRUCTIONS:
                raise Refused(f"more than {_MOST_INSTRUCTIONS:,} instructions")
            step(argument)
        return self._take(1)[0]

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise Refused("instructions that take more than there is")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _drop(self, _: Any) -> None:
        self._take(1)

    def _since_mark(self) -> list[Any]:
        taken: list[Any] = []
        while not isinstance(value := self._take(1)[0], _Mark):
            taken.append(value)
        return taken[::-1]

    def _set_items(self, values: list[Any]) -> None:
        table = self._take(1)[0]
        if not isinstance(table, dict) or len(values) % 2:
            raise Refused("items that belong to no table")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str):
                raise Refused(f"a key that is no text: {key!r:.40}")
            table[key] = value
        self._push(table)

    def _append(self, values: list[Any]) -> None:
        target = self._take(1)[0]
        if not isinstance(target, list):
            raise Refused("values that belong to no list")
        target.extend(values)
        self._push(target)

    def _remember(self, place: int) -> None:
        if not self.stack:
            raise Refused("instructions that take more than there is")
        self.memo[place] = self.stack[-1]

    def _recall(self, place: int) -> None:
        if place not in self.memo:
            raise Refused(f"a value {place} that was never kept")
        self._push(self.memo[place])

    def _name(self, path: str) -> None:
        if path not in _KNOWN:
            raise Refused(f"the name {path!r:.80}, which a table of tensors does not need")
        self._push(Name(path))

    def _storage(self, _: Any) -> None:
        match self._take(1)[0]:
            case ("storage", Name(path), str(key), str(), int(numbers), None) if (
                path in _KINDS and numbers >= 0
            ):
                self._push(Storage(path, key, numbers))
            case found:
                raise Refused(f"no description of a storage: {found!r:.80}")

    def _rebuild(self, _: Any) -> None:
        match self._take(2):
            case [Name(path=path), ()] if path == _TABLE:
                self._push({})
            case [
                Name(path=path),
                (Storage() as storage, int(offset), tuple(shape), stride, *_),
            ] if path == _REBUILD:
                self._push(_view(storage, offset, shape, stride))
            case found:
                raise Refused(f"a call that makes no tensor: {found!r:.80}")


def _view(storage: Storage, offset: int, shape: tuple[Any, ...], stride: Any) -> Tensor:
    """Check that a view lies within its storage and is no larger than it."""
    fits = isinstance(stride, tuple) and len(stride) == len(shape)
    fits = fits and all(isinstance(n, int) and n >= 1 for n in (*shape, *stride))
    if not fits or offset < 0:
        raise Refused(f"a tensor of the shape {shape!r:.60} and steps {stride!r:.60}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if math.prod(shape) > storage.numbers or last >= storage.numbers:
        raise Refused(f"a tensor of the shape {shape!r:.60} that its storage cannot fill")
    return Tensor(storage, offset, shape, stride)


def read(file: BinaryIO) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the tensors by name and where in the file each storage begins.

    Raises:
        Refused: When the file is anything but a plain table of tensors.
    """
    if Machine().run(file) != _MAGIC or Machine().run(file) != _PROTOCOL:
        raise Refused("no torch file of the old kind")
    machine = Machine().run(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("numbers of another byte order")
    tensors = Machine().run(file)
    if not isinstance(tensors, dict) or not tensors:
        raise Refused("no table of tensors")
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise Refused("a table that holds other things than tensors")
    return tensors, _places(file, Machine().run(file), tensors)


def _places(file: BinaryIO, keys: Any, tensors: dict[str, Tensor]) -> dict[str, int]:
    """Return where each storage begins; together they must fill the file to its end."""
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if any(tensor.storage != storages[tensor.storage.key] for tensor in tensors.values()):
        raise Refused("two storages of one name")
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise Refused("a list of storages that is not that of its tensors")
    places, end = {}, file.seek(0, os.SEEK_CUR)
    size = os.fstat(file.fileno()).st_size
    for key in keys:
        head = file.read(8)
        if len(head) < 8 or struct.unpack("<q", head)[0] != storages[key].numbers:
            raise Refused("a storage that is not as long as its description says")
        places[key] = end + 8
        end += 8 + storages[key].numbers * _KINDS[storages[key].kind][1]
        if end > size:
            raise Refused("an end before its last storage")
        file.seek(end)
    if end != size:
        raise Refused("more bytes than its storages")
    return places


def write(
    source: BinaryIO, target: BinaryIO, tensors: dict[str, Tensor], places: dict[str, int]
) -> None:
    """Write tensors as safetensors, in the order of their names, so that one content is one file.

    Args:
        source: The torch file.
        target: Where to.
        tensors: By name.
        places: Where in the source each storage begins.
    """
    header, end = {}, 0
    for name, tensor in sorted(tensors.items()):
        kind, size = _KINDS[tensor.storage.kind]
        begin, end = end, end + math.prod(tensor.shape) * size
        header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write(struct.pack("<Q", len(text)) + text)
    for _, tensor in sorted(tensors.items()):
        size = _KINDS[tensor.storage.kind][1]
        source.seek(places[tensor.storage.key])
        numbers = _numbers(source.read(tensor.storage.numbers * size), size)
        _write_rows(target, numbers, tensor)


def _numbers(data: bytes, size: int) -> memoryview:
    """Return bytes as whole numbers of a size; they are moved, never looked at."""
    view = memoryview(data)
    if size == 2:
        return view.cast("H")
    return view.cast("I") if size == 4 else view.cast("Q")


def _write_rows(target: BinaryIO, numbers: memoryview, tensor: Tensor) -> None:
    """Write a view in the order of its last dimension first, a run of equal steps at a time."""
    outer = _merged(tensor)
    count, step = outer.pop()
    starts = [tensor.offset]
    for n, apart in outer:
        starts = [start + i * apart for start in starts for i in range(n)]
    for start in starts:
        target.write(numbers[start : start + (count - 1) * step + 1 : step].tobytes())


def _merged(tensor: Tensor) -> list[tuple[int, int]]:
    """Return (size, step) of each dimension, those that follow on each other made one.

    Example:
        >>> storage = Storage("torch FloatStorage", "0", 24)
        >>> _merged(Tensor(storage, 0, (2, 1, 3, 4), (12, 12, 4, 1)))
        [(24, 1)]
        >>> _merged(Tensor(storage, 0, (2, 3, 4), (1, 8, 2)))
        [(2, 1), (12, 2)]
    """
    merged: list[tuple[int, int]] = []
    for size, step in zip(tensor.shape, tensor.stride, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * step:
            size *= merged.pop()[0]
        merged.append((size, step))
    return merged or [(1, 1)]


def main(source: str, target: str) -> int:
    """Convert one file; return the exit status, with the reason on standard error."""
    for what, most in _LIMITS:
        resource.setrlimit(what, (most, most))
    try:
        with Path(source).open("rb") as file:
            tensors, places = read(file)
            with Path(target).open("xb") as made:
                write(file, made, tensors, places)
    except Refused as refused:
        sys.stderr.write(f"It holds {refused}.\n")
        return REFUSED
    except (ValueError, UnicodeDecodeError, RecursionError) as error:  # of pickletools
        sys.stderr.write(f"It cannot be taken apart: {str(error)[:200]}.\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
