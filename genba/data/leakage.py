"""Does anything leak between the splits of a version? Decided by looking at the rows."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.values import Segment
from genba.data import segments
from genba.data.splits import SplitRule, fingerprints, mix
from genba.data.view import DatasetView

_USED: Final = ("train", "calibrate", "test")
Hashes = npt.NDArray[np.uint64]
Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """One way in which what is tested on was known before."""

    kind: str  # time, entity, contents or moment
    reason: str


@dataclass
class _Seen:
    """What was seen of each split so far."""

    spans: dict[int, dict[str, Span]] = field(default_factory=lambda: defaultdict(dict))
    owners: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    contents: dict[str, list[Hashes]] = field(default_factory=lambda: defaultdict(list))
    moments: list[tuple[bool, Span, Hashes]] = field(default_factory=list)  # first: is it live


def check_leakage(view: DatasetView) -> tuple[Leak, ...]:
    """Return every way in which rows of one split are known to another; none is right.

    Looked for, as the version's split asks: a training row that is not older than the calibration
    rows and these not older than the test rows, with the purge gap between, and the same between
    what was split first and what came later (by time); an entity on two sides (by entity, and
    entities held out); equal contents on two sides (by chance); one moment of one entity twice.
    Reads one segment at a time; data without a clock needs 8 bytes per row more.
    """
    sheet = view.sheet()
    rule = decode(SplitRule, sheet["split"]["rule"])
    seen, leaks = _Seen(), []
    for part, segment in _parts(view, sheet):
        names = ["entity", "time", "split", *(view.sensors if rule.by == "random" else ())]
        frame = segments.read(view.store.blobs, segment, names)
        leaks += _moments(frame, segment, seen) if view.has_clock else []
        _note(frame, seen, part, rule, view)
    if rule.by == "time":
        leaks += _time_leaks(seen, _purge_of(sheet, rule))
    if rule.by == "entity" or rule.entities:
        leaks += _entity_leaks(seen, rule)
    if rule.by == "random":
        leaks += _content_leaks(seen)
    return tuple({leak.kind + leak.reason: leak for leak in leaks}.values())


def refuse_leakage(view: DatasetView) -> None:
    """Stop where something leaks.

    Raises:
        Problem: G214 with every leak that was found.
    """
    leaks = check_leakage(view)
    if leaks:
        raise Problem(
            "G214",
            "The splits leak: " + leaks[0].reason,
            where=f"dataset {view.digest[:12]}",
            why=" ".join(leak.reason for leak in leaks[1:]),
            tries=["genba run LINE", "genba explain G214"],
        )


def _parts(view: DatasetView, sheet: Any) -> list[tuple[int, Segment]]:
    """Number the parts that were split on their own (first, later, live); live ones first."""
    stops = np.array(sheet["split"]["stops"], dtype=np.int64)
    live = {d: n for n, part in enumerate(sheet.get("live", ())) for d in part["segments"]}
    found = []
    for segment in view.version.segments:
        number = int(np.searchsorted(stops, segment.first_time_ms or 0, side="right"))
        number = len(stops) + 1 + live[segment.digest] if segment.digest in live else number
        found.append((number, segment))
    return sorted(found, key=lambda item: item[1].origin == "source")


def _note(frame: pl.DataFrame, seen: _Seen, part: int, rule: SplitRule, view: DatasetView) -> None:
    for split in _USED:
        rows = frame.filter(pl.col("split") == split)
        seen.owners[split] |= set(rows["entity"].unique())
        if rule.by == "random" and rows.height:
            columns = [rows[name].to_numpy() for name in view.sensors]
            seen.contents[split].append(np.unique(fingerprints(columns)))
        free = rows.filter(~pl.col("entity").is_in(list(rule.entities)))["time"].to_numpy()
        if len(free):
            span = (int(free.min()), int(free.max()))
            before = seen.spans[part].get(split, span)
            seen.spans[part][split] = (min(before[0], span[0]), max(before[1], span[1]))


def _moments(frame: pl.DataFrame, segment: Segment, seen: _Seen) -> list[Leak]:
    """Find a moment of an entity that is there twice, in this segment or in one seen before.

    Segments of a source follow each other in time; only live ones, which come first, may lie
    beside others, so only their moments are kept.
    """
    keys, times = _keys(frame), frame["time"].to_numpy()
    span = (int(times.min()), int(times.max()))
    near = [
        (live, k) for live, (low, high), k in seen.moments if low <= span[1] and high >= span[0]
    ]
    twice = len(np.unique(keys)) < len(keys)
    twice = twice or any(np.isin(keys, k).any() for live, k in near if live)
    overlap = segment.origin == "source" and any(not live for live, _ in near)
    live = segment.origin != "source"
    seen.moments.append((live, span, keys if live else keys[:0]))
    leaks = []
    if twice:
        leaks.append(Leak(kind="moment", reason="A moment of an entity is in it twice."))
    if overlap:
        leaks.append(Leak(kind="moment", reason="Two segments of the source overlap in time."))
    return leaks


def _keys(frame: pl.DataFrame) -> Hashes:
    """Return one number per entity and time."""
    names = frame["entity"].unique()
    owners = {n: int.from_bytes(hashlib.sha256(n.encode()).digest()[:8], "little") for n in names}
    owner = frame["entity"].replace_strict(owners, return_dtype=pl.UInt64).to_numpy()
    return mix(owner ^ mix(frame["time"].to_numpy().view(np.uint64)))


def _purge_of(sheet: Any, rule: SplitRule) -> dict[int, int]:
    """Return the purge gap of each part in ms; live rows were cut by rules of their own."""
    first_live = len(sheet["split"]["stops"]) + 1
    purge = dict.fromkeys(range(first_live), rule.purge_ms)
    for number, part in enumerate(sheet.get("live", ())):
        purge[first_live + number] = part["split"]["rule"]["purge_ms"]
    return purge


def _time_leaks(seen: _Seen, purge: Mapping[int, int]) -> list[Leak]:
    leaks = []
    for part, spans in seen.spans.items():
        purge_ms = purge[part]
        used = [(split, spans[split]) for split in _USED if split in spans]
        for (older, before), (newer, after) in itertools.pairwise(used):
            if before[1] + purge_ms >= after[0]:
                reason = (
                    f"The newest {older} row ({_iso(before[1])}) is not {purge_ms} ms older than "
                    f"the oldest {newer} row ({_iso(after[0])})."
                )
                leaks.append(Leak(kind="time", reason=reason))
    return leaks + _part_leaks(seen, purge)


def _part_leaks(seen: _Seen, purge: Mapping[int, int]) -> list[Leak]:
    """Find a part that was split later and begins among the rows of those before it."""
    leaks: list[Leak] = []
    newest: int | None = None
    for part, spans in sorted(seen.spans.items()):
        oldest = min(span[0] for span in spans.values())
        if newest is not None and newest + purge[part] >= oldest:
            reason = (
                f"A later part of the data begins ({_iso(oldest)}) before the earlier one ends "
                f"({_iso(newest)}), or not {purge[part]} ms behind it."
            )
            leaks.append(Leak(kind="time", reason=reason))
        ends = [span[1] for span in spans.values()]
        newest = max(ends) if newest is None else max(newest, *ends)
    return leaks


def _entity_leaks(seen: _Seen, rule: SplitRule) -> list[Leak]:
    leaks = []
    for one, other in itertools.combinations(_USED, 2):
        both = seen.owners[one] & seen.owners[other]
        if rule.by != "entity":
            both &= set(rule.entities)
        if both:
            reason = f"The entity {min(both)} is in {one} and in {other}."
            leaks.append(Leak(kind="entity", reason=reason))
    return leaks


def _content_leaks(seen: _Seen) -> list[Leak]:
    all_of = {split: np.unique(np.concatenate(h)) for split, h in seen.contents.items() if h}
    leaks = []
    for one, other in itertools.combinations([s for s in _USED if s in all_of], 2):
        shared = len(np.intersect1d(all_of[one], all_of[other], assume_unique=True))
        if shared:
            reason = f"{shared:,} different rows of {one} are in {other} with the same values."
            leaks.append(Leak(kind="contents", reason=reason))
    return leaks


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
