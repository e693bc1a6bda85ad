"""Publishing a release to devices: cut into pieces, listed, and signed as what exists.

A file is cut where its tensors begin and end, so that a tensor that did not change is the same
piece in the next release and is not fetched again; see docs/edge/agent.md for what that was
measured to save. Whoever publishes needs the keys of the roles root and targets; they are made at
first use, in a folder that belongs on a stick.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx

from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.edge.agent.listing import Listing, Piece, cut, encode_listing, piece_of, read_listing
from genba.edge.agent.orders import list_path
from genba.edge.agent.rules import Plan
from genba.edge.release import Release
from genba.serve.edge.folder import edge_folder
from genba.store.home import Store

PUBLISHED: Final = "edge.published"
_LEAST: Final = 16 << 10  # bytes of a tensor that is worth a piece of its own
_MOST: Final = 4 << 20  # bytes of a piece
_OFFLINE: Final = "offline"


@dataclass(frozen=True, kw_only=True, slots=True)
class Publishing:
    """What is to be published.

    Args:
        release: Opened, so that what is published is what devices will accept.
        plan: How it is tried on a device.
        keys: Folder of the offline keys; `edge/offline` in the home when None.
        devices: The only ones that shall take it; all of the line when empty.
    """

    release: Release
    plan: Plan = field(default_factory=Plan)
    keys: Path | None = None
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What was published."""

    line: str
    release: int
    bytes: int
    new_bytes: int  # that a device with the release before has to fetch
    whole_files_bytes: int  # the same if files were fetched whole
    pieces: int
    keys: Path
    keys_made: bool
    seconds: float


def publish(store: Store, order: Publishing) -> Published:
    """Sign that a release exists, and tell devices to take it.

    Args:
        store: Of the factory.
        order: What and for whom.

    Raises:
        Problem: G688 when it was published before, G679 when a key cannot be used, G901 when the
            library `tuf` is not installed, G303 when the disk is full.
    """
    began = time.monotonic()
    repository = _repository(store)
    keys, folder, made = offline_keys(store, order.keys)
    if not repository.exists:
        repository.create(keys)
    line, number = order.release.statement.line, order.release.statement.release
    path = list_path(line, number)
    if path in repository.targets():
        raise Problem(
            "G688",
            f"Release {number} of {line} was published before.",
            where=path,
            tries=[f"genba edge publish {line}  # exports a new one", "genba edge devices"],
        )
    before = _before(repository, line, number)
    files = dict(_cut_all(order.release.folder, repository.put))
    listing = Listing(line=line, release=number, files=files, plan=order.plan)
    repository.add_targets({path: encode_listing(listing)}, keys)
    repository.change_plan(lambda plan: _order(plan, line, number, order.devices))
    done = Published(
        line=line,
        release=number,
        bytes=listing.size_bytes,
        new_bytes=_new(listing, before, whole=False),
        whole_files_bytes=_new(listing, before, whole=True),
        pieces=sum(map(len, files.values())),
        keys=folder,
        keys_made=made,
        seconds=time.monotonic() - began,
    )
    store.ledger.append(
        PUBLISHED,
        {
            "release": number,
            "package": order.release.package.id,
            "devices": list(order.devices),
            "bytes": done.bytes,
            "new_bytes": done.new_bytes,
        },
        line=line,
        subject=order.release.package.id,
        key=f"{PUBLISHED}:{line}:{number}",
    )
    return done


def offline_keys(
    store: Store, folder: Path | None = None, *, new: bool = False
) -> tuple[Any, Path, bool]:
    """Return the keys of root and targets, where they are, and whether they were made just now.

    Args:
        store: Of the factory.
        folder: Where they are; `edge/offline` in the home when None.
        new: Make them if they are not there.

    Raises:
        Problem: G679 when a key cannot be used, or is missing although others exist.
    """
    place = folder or edge_folder(store.path) / _OFFLINE
    made = new or (not _repository(store).exists and not place.is_dir())
    read_keys = resolve("update", "keys")
    return read_keys(place, make=made), place, made


def cut_points(name: str, data: bytes) -> list[int]:
    """Return where a file is cut: around its tensors, and where a piece would be too large.

    Example:
        >>> cut_points("card.md", bytes(9 << 20))
        [4194304, 8388608]
    """
    kinds: Mapping[str, Callable[[bytes], Iterator[tuple[int, int]]]] = {
        ".onnx": _onnx_tensors,
        ".safetensors": _safetensors,
    }
    find = kinds.get(Path(name).suffix)
    points = {0, len(data)}
    for start, end in find(data) if find else ():
        if end - start >= _LEAST:
            points |= {start, end}
    ordered = sorted(points)
    for start, end in zip(ordered, ordered[1:], strict=False):
        points.update(range(start + _MOST, end, _MOST))
    return sorted(points - {0, len(data)})


def _onnx_tensors(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the numbers of an ONNX graph lie in its file, in the order of the file."""
    position = 0
    for tensor in onnx.load_model_from_string(data).graph.initializer:
        raw = tensor.raw_data
        if len(raw) >= _LEAST and (start := data.find(raw, position)) >= 0:
            position = start + len(raw)
            yield start, position


def _safetensors(data: bytes) -> Iterator[tuple[int, int]]:
    size = int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield 8 + size + start, 8 + size + end


def _cut_all(folder: Path, put: Callable[[bytes], str]) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        parts = cut(data, cut_points(path.name, data))
        for part in parts:
            put(part)
        yield path.relative_to(folder).as_posix(), tuple(piece_of(part) for part in parts)


def _before(repository: Any, line: str, number: int) -> Listing | None:
    """Return the list of the newest release before this one that still exists."""
    prefix = f"{line}/"
    known = [
        int(path.removeprefix(prefix).removesuffix(".json"))
        for path in repository.targets()
        if path.startswith(prefix)
    ]
    older = [n for n in known if n < number]
    return read_listing(repository.read(list_path(line, max(older)))) if older else None


def _new(listing: Listing, before: Listing | None, *, whole: bool) -> int:
    """Return the bytes that are not in another release, by pieces or by whole files."""
    if before is None:
        return listing.size_bytes
    if whole:
        known = set(before.files.values())
        return sum(sum(p.size for p in f) for f in listing.files.values() if f not in known)
    have = {piece.digest for piece in before.pieces()}
    new = {piece.digest: piece.size for piece in listing.pieces() if piece.digest not in have}
    return sum(new.values())


def _order(plan: Any, line: str, number: int, devices: tuple[str, ...]) -> None:
    """Tell all devices of a line to take a release, or only some of them."""
    if not devices:
        kept = plan.lines.get(line, {}).get("withdrawn", {})
        plan.lines[line] = {"release": number, **({"withdrawn": kept} if kept else {})}
        for device in plan.devices.values():
            if device.get("line") == line:
                device.pop("release", None)
        return
    for device in devices:
        plan.devices.setdefault(device, {"line": line})["release"] = number


def _repository(store: Store) -> Any:
    return resolve("update", "repository")(store.path)
