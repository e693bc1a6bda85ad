"""Files that others write: images of a camera, or rows at the end of CSV files.

An image counts when it was not changed for a while, in the order in which they were finished. Of a
CSV file, lines count when they are whole. Both have a cursor, so that a restart goes on where it
was; nothing here is moved or deleted.
"""

import csv
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from genba.core.io import disk
from genba.edge.links import Around, JsonBody, Reading, Standing
from genba.edge.links import payload as reading_of
from genba.edge.links.payload import Unreadable
from genba.edge.links.settings import FilesSettings, wrong

_MOST_BYTES: Final = 64 << 20  # of an image, and of what is read from a CSV file at once
_NS: Final = 1_000_000


class FilesLink:
    """A folder that is looked into again and again.

    Args:
        settings: Of the link file.
        around: The clock.

    Raises:
        Problem: G691 when the pattern leaves the folder.
    """

    def __init__(self, settings: FilesSettings, around: Around) -> None:
        self.name = settings.name
        self.standing = Standing()
        self._settings = settings
        self._clock = around.clock
        self._folder = Path(settings.folder)
        self._behind = (0, "")  # of images: when the last one was finished, and its name
        self._offsets: dict[str, int] = {}  # of CSV files: bytes that were read
        self._headers: dict[str, list[str]] = {}
        self._sizes: dict[str, tuple[int, int, int]] = {}  # name -> size, mtime, since
        self._confirmed: list[int] = []
        if ".." in Path(settings.pattern).parts or Path(settings.pattern).is_absolute():
            raise wrong(
                f"The pattern {settings.pattern!r} leaves the folder.",
                f"links.{self.name}.pattern",
                ['pattern = "*.png"'],
            )

    def readings(self, stop: threading.Event) -> Iterator[Reading]:
        """Yield what is new in the folder."""
        work = self._images if self._settings.format == "image" else self._rows
        while not stop.is_set():
            try:
                paths = sorted(p for p in self._folder.glob(self._settings.pattern) if p.is_file())
                if not self._folder.is_dir():
                    raise FileNotFoundError(f"there is no folder {self._folder}")
                if not self.standing.connected:
                    self.standing.up()
                yield from work(paths)
            except OSError as error:
                self.standing.down(str(error))
            self._clock.wait(stop, self._settings.every_ms)

    def acknowledge(self, reading: Reading) -> None:
        """Do nothing: files stay where they are."""

    def resume(self, cursor: str) -> None:
        """Go on behind the reading that had this cursor."""
        try:
            body = json.loads(cursor)
            if self._settings.format == "image":
                self._behind = (int(body[0]), str(body[1]))
            else:
                self._offsets = {str(name): int(at) for name, at in body.items()}
        except (ValueError, TypeError, LookupError, AttributeError):
            self.standing.detail = "its place was lost; everything is read again"

    def publish(self, number: int, body: JsonBody) -> bool:
        """Append an answer to the file of answers."""
        line = json.dumps(body, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            with Path(self._settings.answers).open("ab", buffering=0) as file:
                disk().write(file, line)
                disk().sync(file)
        except OSError as error:
            self.standing.detail = f"answers cannot be written: {error}"
            return False
        self._confirmed.append(number)
        self.standing.published += 1
        return True

    def confirmed(self) -> list[int]:
        """Return what was written."""
        found, self._confirmed = self._confirmed, []
        return found

    def close(self) -> None:
        """Look no more."""
        self.standing.down("closed")

    def _images(self, paths: list[Path]) -> Iterator[Reading]:
        new = []
        for path in paths:
            state = path.stat()
            if (state.st_mtime_ns, path.name) > self._behind and self._is_whole(path, state):
                new.append((state.st_mtime_ns, path))
        for mtime_ns, path in sorted(new, key=lambda one: (one[0], one[1].name)):
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
            self._behind = (mtime_ns, path.name)
            self._sizes.pop(path.name, None)
            self.standing.readings += 1
            yield Reading(
                id=f"{self.name}/{path.name}.{hashlib.sha256(data).hexdigest()[:32]}",
                source=self.name,
                entity=self._settings.entity,
                time_ms=mtime_ns // _NS,
                received_ms=self._clock.now_ms(),
                image=data,
                cursor=json.dumps([mtime_ns, path.name]),
            )

    def _is_whole(self, path: Path, state: os.stat_result) -> bool:
        now = self._clock.elapsed_ms()
        seen = self._sizes.get(path.name)
        if seen is None or seen[:2] != (state.st_size, state.st_mtime_ns):
            self._sizes[path.name] = (state.st_size, state.st_mtime_ns, now)
            return False
        return now - seen[2] >= self._settings.settle_ms

    def _rows(self, paths: list[Path]) -> Iterator[Reading]:
        for path in paths:
            at = self._offsets.get(path.name, 0)
            if path.stat().st_size < at:  # begun anew, as logs are
                at = 0
                self._headers.pop(path.name, None)
            with path.open("rb") as file:
                header = self._header(path.name, file.readline())
                file.seek(max(at, file.tell()))
                start = file.tell()
                data = file.read(_MOST_BYTES)
            whole = data[: data.rfind(b"\n") + 1]
            for line in whole.splitlines(keepends=True):
                start += len(line)
                self._offsets[path.name] = start
                yield from self._row(path.name, header, line)

    def _header(self, name: str, line: bytes) -> list[str]:
        if name not in self._headers:
            if not line.endswith(b"\n"):
                raise OSError(f"{name} has no whole first line yet")
            self._headers[name] = next(csv.reader([line.decode("utf-8-sig", "replace")]), [])
        return self._headers[name]

    def _row(self, name: str, header: list[str], line: bytes) -> Iterator[Reading]:
        cells = next(csv.reader([line.decode("utf-8", "replace")]), [])
        if not cells:
            return
        body = dict(zip(header, cells, strict=False))
        now_ms = self._clock.now_ms()
        try:
            time_ms = reading_of.time_of(body, self._settings.time_field)
        except Unreadable as error:
            self.standing.refused += 1
            self.standing.detail = f"a row of {name} is refused: {error}"
            return
        columns = self._settings.columns
        if columns:
            values = reading_of.values_of(body, columns)
        else:
            others = (self._settings.time_field, self._settings.entity_field)
            values = {n: reading_of.number(v) for n, v in body.items() if n not in others}
        entity = body.get(self._settings.entity_field) or self._settings.entity
        known = f"{entity}@{time_ms}" if time_ms is not None else f"{name}+{self._offsets[name]}"
        self.standing.readings += 1
        self.standing.bad += sum(value is None for value in values.values())
        yield Reading(
            id=f"{self.name}/{known}",
            source=self.name,
            entity=entity,
            time_ms=now_ms if time_ms is None else time_ms,
            received_ms=now_ms,
            values=values,
            cursor=json.dumps(self._offsets),
        )
