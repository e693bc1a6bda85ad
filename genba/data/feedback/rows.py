"""One row of feedback as it comes in: what it is about, what it says, who says it."""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from genba.core.codec import nearest
from genba.core.problem import Problem

Kind = Literal["label", "correction", "comment"]
Label = Callable[[str], float]

FIELDS: Final = ("prediction", "entity", "time", "kind", "value", "author", "comment")
KINDS: Final = ("label", "correction", "comment")
ANONYMOUS: Final = "anonymous"
_LONGEST: Final = {"prediction": 128, "entity": 256, "value": 256, "author": 256, "comment": 4_096}
_LATEST_MS: Final = 10**14  # the year 5138: larger numbers are not milliseconds
_BYTES_PER_LINE: Final = 65_536


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


class FileRow(dict[str, str]):
    """A row of a file that knows its line."""

    def __init__(self, values: Mapping[str, str], where: str) -> None:
        super().__init__(values)
        self.where = where


def parse(raw: Mapping[str, Any], where: str, label: Label) -> Said:
    """Understand one row.

    Args:
        raw: Fields as they came; empty ones count as absent.
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
            raise _unknown_field(str(name), where)
    texts = {name: _text(name, fields[name], where) for name in _LONGEST if name in fields}
    kind = _kind(fields, where)
    time_ms = _time_ms(fields["time"], where) if "time" in fields else None
    if "prediction" not in texts and time_ms is None:
        raise Problem(
            "G803",
            "The row is about nothing: it has neither a prediction nor a time.",
            where=where,
            tries=["prediction = the id in the answer", "entity and time of the row it is about"],
        )
    value = texts.get("value")
    if kind != "comment" and value is None:
        raise Problem(
            "G803",
            f"A {kind} needs a value.",
            where=where,
            tries=["value = normal", "kind = comment"],
        )
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
    )


def read_csv(path: Path) -> Iterator[FileRow]:
    """Read feedback from a CSV file with a header; comma, semicolon or tab.

    Yields:
        Rows that know their line in the file.

    Raises:
        Problem: G805 when the file cannot be read as such, with the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline(_BYTES_PER_LINE)
            file.seek(0)
            delimiter = max(",;\t", key=head.count)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            _check_header(path, reader.fieldnames or [])
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row:  # where DictReader puts what is too much
                    raise _bad_file(where, "The row has more cells than the header.")
                values = {(k or "").strip(): v or "" for k, v in row.items()}
                if any(values.values()):
                    yield FileRow(values, where)
    except FileNotFoundError as missing:
        raise _bad_file(str(path), "There is no such file.") from missing
    except (UnicodeDecodeError, csv.Error, OSError) as broken:
        raise _bad_file(str(path), f"It cannot be read as CSV in UTF-8: {broken}.") from broken


def _check_header(path: Path, header: Any) -> None:
    names = [(name or "").strip() for name in header]
    if not names:
        raise _bad_file(f"{path}:1", "The file is empty.")
    for name in names:
        if name not in FIELDS:
            raise _unknown_field(name, f"{path}:1")
    if "prediction" not in names and "time" not in names:
        raise _bad_file(f"{path}:1", "The header has neither prediction nor time.")


def _bad_file(where: str, what: str) -> Problem:
    return Problem(
        "G805",
        what,
        where=where,
        why=f"The first line names the columns; known: {', '.join(FIELDS)}.",
        tries=["prediction,value,author", "entity,time,value,author"],
    )


def _unknown_field(name: str, where: str) -> Problem:
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


def _text(name: str, value: Any, where: str) -> str:
    if isinstance(value, (dict, list)):
        raise _impossible(where, f"{name} must be text, not {type(value).__name__}.", f"{name} = …")
    text = str(value).strip()
    if len(text) > _LONGEST[name]:
        what = f"{name} has {len(text)} characters; {_LONGEST[name]} are kept."
        raise _impossible(where, what, f"shorten {name}")
    return text


def _kind(fields: Mapping[str, Any], where: str) -> Kind:
    kind = str(fields.get("kind", "label" if "value" in fields else "comment")).strip().lower()
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
