"""One row of feedback as it comes in: what it is about, what it says, who says it."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.data.feedback import regions
from genba.data.feedback.regions import Region

Kind = Literal["label", "correction", "comment"]
Label = Callable[[str], float]

FIELDS: Final = (
    "prediction",
    "entity",
    "time",
    "kind",
    "value",
    "author",
    "comment",
    "mask",
    "region",
)
KINDS: Final = ("label", "correction", "comment")
ANONYMOUS: Final = "anonymous"
_LONGEST: Final = {
    "prediction": 128,
    "entity": 256,
    "author": 256,
    "comment": 4_096,
    "region": regions.LONGEST,
}
#: A label is a word; a correction may say every value of a horizon.
_LONGEST_VALUE: Final = {"label": 256, "correction": 16_384, "comment": 256}
#: A better answer in words is a correction, whatever length that takes.
_ANSWER: Final = re.compile(r"\s*(?:answer|prefer)\s*:", re.IGNORECASE)
_LATEST_MS: Final = 10**14  # the year 5138: larger numbers are not milliseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A row that can be understood."""

    where: str
    prediction: str | None
    entity: str | None
    time_ms: int | None
    kind: Kind
    value: str | None
    label: float | None  # what the task makes of the value
    author: str
    comment: str
    mask: bytes | None = None  # as it is kept
    region: Region | None = None  # in pixels, which need the size of the image


def parse(raw: Mapping[str, Any], where: str, label: Label) -> Said:
    """Understand one row.

    Args:
        raw: Fields as they came; empty ones count as absent. A mask is an image as bytes, as text
            in base64, or the path of a file of this machine.
        where: Which row it is, for people.
        label: Turns a value into a label; raises Problem G801.

    Raises:
        Problem: G801 a value the task does not know, G802 unknown field, G803 it says nothing or
            is about nothing, G804 an impossible field.

    Example:
        >>> said = parse({"prediction": "s1-7", "value": "normal"}, "row 1", lambda _: 0.0)
        >>> said.kind, said.label, said.author
        ('label', 0.0, 'anonymous')
    """
    fields = {k: v for k, v in raw.items() if v is not None and str(v).strip() != ""}
    for name in fields:
        if name not in FIELDS:
            raise unknown_field(str(name), where)
    kind = _kind(fields, where)
    longest = {**_LONGEST, "value": _LONGEST_VALUE[kind]}
    texts = {n: _text(n, fields[n], most, where) for n, most in longest.items() if n in fields}
    time_ms = _time_ms(fields["time"], where) if "time" in fields else None
    _check_complete(fields, kind, where)
    value = texts.get("value")
    mask, region = _marked(fields.get("mask"), texts.get("region"), where)
    return Said(
        where=where,
        prediction=texts.get("prediction"),
        entity=texts.get("entity"),
        time_ms=time_ms,
        kind=kind,
        value=value,
        label=label(value) if value is not None and kind != "comment" else None,
        author=texts.get("author", ANONYMOUS),
        comment=texts.get("comment", ""),
        mask=mask,
        region=region,
    )


def _check_complete(fields: Mapping[str, Any], kind: Kind, where: str) -> None:
    if "prediction" not in fields and "time" not in fields:
        raise Problem(
            "G803",
            "The row is about nothing: it has neither a prediction nor a time.",
            where=where,
            tries=["prediction = the id in the answer", "entity and time of the row it is about"],
        )
    if kind != "comment" and "value" not in fields:
        raise Problem(
            "G803",
            f"A {kind} needs a value.",
            where=where,
            tries=["value = normal", "kind = comment"],
        )
    marks = [name for name in ("mask", "region") if name in fields]
    if marks and (kind == "comment" or len(marks) > 1):
        raise Problem(
            "G803",
            "A mask or a region says where; it needs a value that says what, and one is enough.",
            where=where,
            tries=["value = the kind of defect", "kind = label"],
        )


def _marked(mask: Any, region: str | None, where: str) -> tuple[bytes | None, Region | None]:
    """Return a mask as it is kept, or a region that cannot be drawn before its image is known."""
    if mask is not None:
        return regions.read_mask(_bytes(mask, where), where), None
    if region is None:
        return None, None
    shapes = regions.parse_region(region, where)
    return (None, shapes) if shapes.pixels else (regions.draw(shapes, None, where), None)


def _bytes(mask: Any, where: str) -> bytes:
    if isinstance(mask, (bytes, bytearray)):
        return bytes(mask)
    if isinstance(mask, Path):
        try:
            with mask.open("rb") as file:
                return file.read(regions.MOST_BYTES + 1)
        except OSError as error:
            raise regions.no_mask(f"{mask} cannot be read: {error.strerror}.", where) from error
    text = str(mask).strip()
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise regions.no_mask(f"The mask is not base64: {error}.", where) from error


def unknown_field(name: str, where: str) -> Problem:
    """Return the problem of a field that feedback has not, with the nearest that it has."""
    near = nearest(name, FIELDS)
    return Problem(
        "G802",
        f"{name!r} is not a field of feedback" + (f"; did you mean {near}?" if near else "."),
        where=where,
        why=f"Known: {', '.join(FIELDS)}.",
        tries=[f"rename it to {near}" if near else "remove it"],
    )


def _impossible(where: str, what: str, *tries: str) -> Problem:
    return Problem("G804", what, where=where, tries=tries)


def _text(name: str, value: Any, longest: int, where: str) -> str:
    if isinstance(value, (dict, list, bytes)):
        raise _impossible(where, f"{name} must be text, not {type(value).__name__}.", f"{name} = …")
    text = str(value).strip()
    if len(text) > longest:
        what = f"{name} has {len(text)} characters; {longest} are kept."
        raise _impossible(where, what, f"shorten {name}")
    return text


def _kind(fields: Mapping[str, Any], where: str) -> Kind:
    usual = "comment"
    if "value" in fields:
        usual = "correction" if _ANSWER.match(str(fields["value"])) else "label"
    kind = str(fields.get("kind", usual)).strip().lower()
    for known in ("label", "correction", "comment"):
        if kind == known:
            return known
    near = nearest(kind, KINDS)
    what = f"kind must be one of {', '.join(KINDS)}, not {kind!r}."
    raise _impossible(where, what, f"kind = {near or 'label'}")


def _time_ms(value: Any, where: str) -> int:
    """Read ISO 8601 (UTC where no offset is given) or milliseconds since 1970."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        number = _iso_ms(text, where)
    if not 0 <= number < _LATEST_MS or isinstance(value, bool):
        raise _not_a_time(text, where)
    return int(number)


def _iso_ms(text: str, where: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _not_a_time(text, where) from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _not_a_time(text: str, where: str) -> Problem:
    what = f"{text!r} is neither a time nor milliseconds since 1970."
    return _impossible(where, what, "time = 2026-03-04T05:06:07Z")
