"""Feedback in files: CSV or JSON Lines, each row with its line in the file."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from genba.core.problem import Problem
from genba.data.feedback.regions import MOST_BYTES
from genba.data.feedback.rows import FIELDS, unknown_field

_BYTES_PER_LINE: Final = 65_536
#: Of a line of JSON, which may hold a mask in base64.
_LONGEST_LINE: Final = 2 * MOST_BYTES
_JSON_LINES: Final = (".jsonl", ".ndjson")


class FileRow(dict[str, Any]):
    """A row of a file that knows its line."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where


def read_file(path: Path) -> Iterator[FileRow]:
    """Read feedback from JSON Lines (.jsonl, .ndjson) or else CSV; a mask is a path beside it.

    Raises:
        Problem: G805 when the file cannot be read as such, with the line.
    """
    rows = _read_json_lines(path) if path.suffix.lower() in _JSON_LINES else read_csv(path)
    for row in rows:
        mask = row.get("mask")
        if isinstance(mask, str) and mask.strip():
            row["mask"] = path.parent / mask.strip()
        yield row


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


def _read_json_lines(path: Path) -> Iterator[FileRow]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if line.strip():
                    yield FileRow(_object(line, f"{path}:{number}"), f"{path}:{number}")
    except FileNotFoundError as missing:
        raise _bad_file(str(path), "There is no such file.") from missing
    except OSError as broken:
        raise _bad_file(str(path), f"It cannot be read: {broken}.") from broken


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise _bad_file(where, f"The line is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise _bad_file(where, "The line is no JSON object.")
    return found


def _check_header(path: Path, header: Any) -> None:
    names = [(name or "").strip() for name in header]
    if not names:
        raise _bad_file(f"{path}:1", "The file is empty.")
    for name in names:
        if name not in FIELDS:
            raise unknown_field(name, f"{path}:1")
    if "prediction" not in names and "time" not in names:
        raise _bad_file(f"{path}:1", "The header has neither prediction nor time.")


def _bad_file(where: str, what: str) -> Problem:
    return Problem(
        "G805",
        what,
        where=where,
        why="The first line of CSV names the columns; a line of JSON Lines is an object. Known: "
        f"{', '.join(FIELDS)}.",
        tries=["prediction,value,author", "entity,time,value,author"],
    )
