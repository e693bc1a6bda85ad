"""One way through captured predictions, newest first: which of their images are new."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from genba.core.digest import canonical_json, digest_bytes
from genba.core.problem import Problem
from genba.core.task import Task
from genba.data.images.examine import Seen, examine, reason, values
from genba.data.images.lessons import Meant
from genba.data.images.pieces import ImageSpill
from genba.data.roles import ONLY_ENTITY
from genba.data.segments import REJECTS_SCHEMA, Rejects
from genba.data.served import Packages, Served, served
from genba.store.captures import inputs_kept, read_capture
from genba.store.home import Store
from genba.store.ledger import Record

#: Images nobody judged, of which the newest are kept: they show what is new but teach little.
MOST_UNJUDGED: Final = 2_000
_IMAGE: Final = "image"


@dataclass(frozen=True, kw_only=True, slots=True)
class Came:
    """An image that was served and is new."""

    prediction: str
    entity: str
    time: int | None
    received_ms: int
    digest: str
    look: bytes
    judged: bool


class Gathering:
    """Takes captures and keeps what is new; the files go to a spill.

    Args:
        task: Finds the images in what its packages were given.
        said: What people said; counts for the newest of several predictions of one image.
        known: Digests of the images that the version has.
        entities: Whether the line tells entities apart.
        spill: Where the files go, in the order of `came`.
    """

    def __init__(
        self, task: Task, said: Meant, known: set[str], spill: ImageSpill, *, entities: bool
    ) -> None:
        self.came: list[Came] = []
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.seen = Seen()
        self._task = task
        self._said = said
        self._known = known
        self._spill = spill
        self._entities = entities
        self._bad: list[dict[str, Any]] = []
        self._first_of: dict[str, str] = {}  # digest -> prediction

    def take(self, store: Store, captures: Sequence[Record], rejects: Rejects) -> None:
        """Look at every image of the captures, which are oldest first."""
        packages = Packages(store)
        for record in reversed(captures):
            if inputs_kept(record.body) != "all":
                self.counts["inputs_not_kept"] += int(record.body["rows"])
                continue
            try:
                table = read_capture(store, record)
            except Problem:
                self.counts["damaged_batches"] += 1  # it hides its own rows and no others
                continue
            for part in served(packages, table):
                self._take(part, str(record.body["server"]))
            if self._bad:
                rejects.add(pl.DataFrame(self._bad, schema=REJECTS_SCHEMA))
                self._bad = []

    def _take(self, part: Served, server: str) -> None:
        if _IMAGE not in part.tensors:
            return
        found = self._task.rows(part.tensors, part.package.settings)
        rows = part.rows.select(["n", "received_ms", "entity", "time"]).to_pylist()
        images = found.columns[_IMAGE]
        for at in range(len(images) - 1, -1, -1):
            row = rows[int(found.of[at])]
            prediction = f"{server}-{row['n']}"
            if self._is_new(images[at], row, prediction):
                self._spill.add([(images[at], None, prediction)])

    def _is_new(self, image: bytes, row: Mapping[str, Any], prediction: str) -> bool:
        self.counts["captured"] += 1
        digest = digest_bytes(image)
        entity = (row["entity"] if self._entities else None) or ONLY_ENTITY
        judged = bool(self._said.about(prediction, entity, row["time"]))
        if digest in self._known:
            self.counts["already_known"] += 1
            return False
        if digest in self._first_of:
            self.counts["repeated"] += 1
            self._said.redirect(prediction, self._first_of[digest])
            return False
        if not judged and self.counts["unjudged"] >= MOST_UNJUDGED:
            self.counts["not_kept"] += 1
            return False
        try:
            found = examine(image, None, self.seen)
        except Problem as problem:
            self._reject(image, prediction, problem)
            return False
        self.counts["judged" if judged else "unjudged"] += 1
        self._first_of[digest] = prediction
        self.came.append(
            Came(
                prediction=prediction,
                entity=entity,
                time=row["time"],
                received_ms=int(row["received_ms"]),
                digest=digest,
                look=found.look,
                judged=judged,
            )
        )
        return True

    def _reject(self, image: bytes, prediction: str, problem: Problem) -> None:
        why, detail = reason(problem, image)
        held = values(digest_bytes(image), len(image), {})
        self.rejected[why] += 1
        self._bad.append(
            {
                "row": self.rejected.total() - 1,
                "file": prediction,
                "line": None,
                "reason": why,
                "detail": detail,
                "values": canonical_json(held).decode(),
            }
        )
