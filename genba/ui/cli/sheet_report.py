"""A dataset sheet as a person reads it."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import RenderableType

from genba.data.fusion.said import sentence
from genba.ui.cli.answer import facts, table
from genba.ui.cli.figures import moment, number, seconds, short, size

_SPLITS: Final = ("train", "calibrate", "test", "purged")
_HOW: Final = {"good": "class, most defects to test with"}
_COLUMNS: Final = ("role", "count", "missing", "min", "median", "mean", "max", "std")
_ENTITIES: Final = 8

Sheet = Mapping[str, Any]
Pairs = list[tuple[str, RenderableType]]


def blocks(sheet: Sheet) -> list[RenderableType]:
    """Return what a sheet says: rows, time, entities, splits, label, source, columns, classes."""
    pairs: Pairs = [
        *_rows(sheet.get("rows") or {}),
        *_time(sheet.get("time") or {}),
        *_entities(sheet.get("entities") or {}),
        *_split(sheet.get("split") or {}),
        *_label(sheet.get("label") or {}),
        *_images(sheet.get("images") or {}),
        *_texts(sheet.get("texts") or {}),
        *_alike(sheet.get("alike") or {}),
        *_stuck(sheet.get("stuck") or {}),
        *_source(sheet.get("source") or {}),
        *_joined(sheet.get("join") or {}),
    ]
    shown: list[RenderableType] = [facts(pairs)]
    columns, classes = sheet.get("columns") or {}, sheet.get("classes") or {}
    if columns or not classes:
        rows = [[name, *(_cell(c.get(what)) for what in _COLUMNS)] for name, c in columns.items()]
        shown.append(table(["column", *_COLUMNS], rows, right=_COLUMNS[1:]))
    if classes:
        told = [n for n in _SPLITS if any(n in counts for counts in classes.values())]
        order = [*(sheet.get("derived") or {}).get("classes", ()), *classes]
        rows = [
            [name or "not labelled", *(_cell(classes[name].get(n)) for n in told)]
            for name in dict.fromkeys(order)
            if name in classes
        ]
        shown.append(table(["class", *told], rows, right=told))
    return shown


def _rows(rows: Sheet) -> Pairs:
    pairs: Pairs = []
    if "read" in rows:
        pairs.append(("rows", f"{number(rows['read'])} read, {number(rows.get('kept', 0))} kept"))
    for what in ("rejected", "skipped"):
        ordered = sorted((rows.get(what) or {}).items(), key=lambda item: -item[1])
        pairs += [("" if i else what, f"{number(n)} {why}") for i, (why, n) in enumerate(ordered)]
    return pairs


def _time(time: Sheet) -> Pairs:
    if time.get("from_ms") is None:
        return []
    pairs: Pairs = [("time", f"{moment(time['from_ms'])} to {moment(time['to_ms'])}")]
    if time.get("step_ms"):
        lost = f"{number(time.get('missing_steps', 0))} steps missing"
        step = seconds(time["step_ms"] / 1_000)
        pairs.append(("step", f"{step}; {number(time.get('gaps', 0))} gaps, {lost}"))
    for name, what in (
        ("out_of_order", "rows older than the one before"),
        ("without_offset_taken_as_utc", "times without an offset, taken as UTC"),
    ):
        if time.get(name):
            pairs.append(("", f"{number(time[name])} {what}"))
    return pairs


def _entities(entities: Sheet) -> Pairs:
    named = entities.get("by_name") or {}
    shown = [f"{name} {number(e['rows'])} rows" for name, e in list(named.items())[:_ENTITIES]]
    more = int(entities.get("count") or len(named)) - len(shown)
    if more > 0:
        shown.append(f"and {number(more)} more")
    return [("entities", "; ".join(shown))] if shown else []


def _split(split: Sheet) -> Pairs:
    rows = split.get("rows") or {}
    by = (split.get("rule") or {}).get("by", "time")
    order = [*(n for n in _SPLITS if n in rows), *(n for n in rows if n not in _SPLITS)]
    parts = [f"{name} {number(rows[name])}" for name in order]
    return [("split", f"by {_HOW.get(by, by)}: {', '.join(parts)}")] if parts else []


def _label(label: Sheet) -> Pairs:
    if not label.get("count"):
        return []
    share = 100 * float(label.get("mean") or 0.0)
    return [("label", f"{number(label['count'])} rows labelled, {share:.2g} % anomalies")]


def _images(images: Sheet) -> Pairs:
    if not images:
        return []
    smallest, largest = (" x ".join(map(str, images[n])) for n in ("smallest_px", "largest_px"))
    sizes = smallest if smallest == largest else f"{smallest} to {largest}"
    kinds = ", ".join(
        f"{number(n)} {kind}"
        for what in ("formats", "modes")
        for kind, n in _by_count(images.get(what) or {})
    )
    pairs: Pairs = [("images", f"{sizes} pixels, {size(float(images['bytes']))}; {kinds}")]
    if images.get("masks"):
        pairs.append(("", f"{number(images['masks'])} masks"))
    pairs += [("", f"{number(n)} {note}") for note, n in _by_count(images.get("notes") or {})]
    return pairs


def _texts(texts: Sheet) -> Pairs:
    if not texts:
        return []
    shapes = ", ".join(f"{number(n)} {kind}" for kind, n in _by_count(texts["shapes"]))
    pairs: Pairs = [("texts", f"{shapes}; {number(texts['characters'])} characters")]
    if texts.get("languages"):
        told = ", ".join(f"{name or '?'} {number(n)}" for name, n in _by_count(texts["languages"]))
        pairs.append(("languages", told))
    if texts.get("personal_data"):
        told = ", ".join(f"{number(n)} {kind}" for kind, n in _by_count(texts["personal_data"]))
        pairs.append(("personal data", f"masked: {told}"))
    pairs += [("", f"{number(n)} {note}") for note, n in _by_count(texts.get("notes") or {})]
    return pairs


def _alike(alike: Sheet) -> Pairs:
    """Say which images or texts were kept together because they are nearly the same."""
    pairs: Pairs = []
    what = "texts" if "texts" in alike else "images"
    if alike.get("groups"):
        held = f"{number(alike[what])} {what} in {number(alike['groups'])} groups"
        pairs.append(("near-duplicates", f"{held}, each on one side of the split"))
    if alike.get("purged"):
        why = f"near to {what} that another split has, so in none"
        pairs.append(("", f"{number(alike['purged'])} {why}"))
    if alike.get("too_alike"):
        why = "too alike to tell copies from others; name what belongs together by data.entity"
        pairs.append(("", why))
    return pairs


def _by_count(counts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(counts.items(), key=lambda item: -item[1])


def _stuck(stuck: Sheet) -> Pairs:
    return [
        ("stuck", f"{name}: {number(s['rows'])} rows in {number(s['runs'])} runs of one value")
        for name, s in stuck.items()
        if s.get("runs")
    ]


def _source(source: Sheet) -> Pairs:
    pairs: Pairs = []
    if "location" in source:
        where = f"{source['location']}, {size(float(source.get('bytes') or 0))}"
        pairs.append(("source", where))
    if source.get("generated"):
        pairs.append(("", "generated by a program, not measured in the world"))
    for name in ("licence", "attribution", "fingerprint"):
        if source.get(name):
            pairs.append((name, short(str(source[name]))))
    return pairs


def _joined(joined: Mapping[str, Sheet]) -> Pairs:
    """Say of each joined source how well it aligned and what was wrong with its rows."""
    pairs: Pairs = []
    for name, found in joined.items():
        pairs.append(("" if pairs else "joined", sentence(name, found)))
        source = found.get("source") or {}
        whose = "of each machine" if found.get("per_machine") else "for every machine"
        step = seconds(source["step_ms"] / 1_000) if source.get("step_ms") else "no two rows"
        told = f"{number(source.get('rows', 0))} rows {whose}, step {step}"
        for key, what in (
            ("unreadable", "without a time, machine or number"),
            ("same_moment", "of a moment that was there already"),
            ("without_offset_taken_as_utc", "times without an offset, taken as UTC"),
        ):
            if source.get(key):
                told += f"; {number(source[key])} {what}"
        pairs.append(("", f"{name}: {told}; not older than {seconds(found['within_s'])}"))
    return pairs


def _cell(value: Any) -> str:
    if value is None or isinstance(value, (Mapping, list)):
        return "-"
    return number(value) if isinstance(value, (int, float)) else str(value)
