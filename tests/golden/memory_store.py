"""A store in memory that keeps the ledger's promises and can crash at any effect."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from genba.core.values import Event


class Crash(BaseException):
    """The controller's process ends here."""


@dataclass(frozen=True, kw_only=True)
class Row:
    id: str
    line: str
    body: Mapping[str, Any]


class MemoryLedger:
    """The ledger's promises (order, keys, records) without a disk; may crash at an effect."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.all: list[Event] = []
        self.keys: dict[str, Event] = {}
        self.records: dict[tuple[str, str], Row] = {}
        self.crash_in: int | None = None  # effects until the crash

    def append(
        self,
        kind: str,
        body: Mapping[str, Any],
        *,
        line: str = "",
        subject: str = "",
        key: str | None = None,
        now_ms: int | None = None,
    ) -> Event:
        if key is not None and key in self.keys:
            return self.keys[key]
        self._effect()
        event = Event(
            seq=len(self.all) + 1,
            time_ms=self.clock() if now_ms is None else now_ms,
            kind=kind,
            line=line,
            subject=subject,
            body=body,
            previous="",
            digest="",
        )
        self.all.append(event)
        if key is not None:
            self.keys[key] = event
        self._effect()
        return event

    def _effect(self) -> None:
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                raise Crash

    def record(self, kind: str, name: str, body: Mapping[str, Any], *, line: str) -> None:
        self.records[kind, name] = Row(id=name, line=line, body=body)

    def get(self, kind: str, name: str) -> Mapping[str, Any] | None:
        row = self.records.get((kind, name))
        return row.body if row else None

    def find(self, kind: str, *, line: str | None = None, limit: int | None = None) -> list[Row]:
        rows = [r for (k, _), r in self.records.items() if k == kind and line in (None, r.line)]
        return rows[::-1][:limit]

    def events(
        self,
        *,
        after: int = 0,
        line: str | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[Event]:
        news = self.all[after:]
        return [e for e in news if e.line == line and (kinds is None or e.kind in kinds)]


class Attempts:
    """A lease that everybody gets: keys alone must keep two controllers from acting twice."""

    def claim(self, key: str, **more: Any) -> SimpleNamespace:
        return SimpleNamespace(state="mine", attempt=1, holder="")

    def heartbeat(self, *a: Any, **k: Any) -> bool:
        return True
