"""Who has answered what a line was asked, as captures have it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genba.edge.texts import as_text
from genba.loop.flywheel.asked import captured_rows
from genba.store.home import Store

_MODEL = "model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Answers by who gave them, and how long they took."""

    by: Mapping[str, int] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)  # mean

    @property
    def answers(self) -> int:
        """How many there were."""
        return sum(self.by.values())

    @property
    def sentence(self) -> str:
        """Who answered, in one sentence.

        Example:
            >>> by, waits = {"model": 3, "student": 1}, {"model": 900, "student": 5}
            >>> Served(by=by, latency_ms=waits).sentence
            '4 answers in service: model 75% (900 ms), student 25% (5 ms)'
        """
        parts = [
            f"{name} {count / self.answers:.0%} ({self.latency_ms[name]:.3g} ms)"
            for name, count in sorted(self.by.items(), key=lambda item: -item[1])
        ]
        return f"{self.answers} answers in service: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"by": dict(self.by), "latency_ms": dict(self.latency_ms)}


def served(store: Store, line: str) -> Served:
    """Return who has answered what a line was asked; nobody where nothing was captured."""
    count: dict[str, int] = {}
    total: dict[str, float] = {}
    for row in captured_rows(store, line, ("by", "latency_us")):
        name = as_text(row["by"]).partition(":")[0] or _MODEL
        count[name] = count.get(name, 0) + 1
        total[name] = total.get(name, 0.0) + float(row["latency_us"]) / 1_000
    return Served(by=count, latency_ms={name: total[name] / count[name] for name in count})
