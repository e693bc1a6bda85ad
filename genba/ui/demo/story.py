"""What happens in the factory while the demonstration runs, read from the ledger as it grows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from genba.core.rollout import fold
from genba.core.values import Event
from genba.store.home import Store

_SHORT: Final = 12
_LOOK_S: Final = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Happening:
    """One line of the story."""

    act: str  # the part of the demonstration it belongs to
    at_s: float  # since the demonstration began
    date: str  # the recorded date the replay had reached, or ""
    what: str


class Story:
    """Follows one line's events and tells those that matter.

    Args:
        store: The store of the demonstration.
        line: Name of the line.
        tell: Called with each happening as soon as it is known.
    """

    def __init__(self, store: Store, line: str, tell: Callable[[Happening], None]) -> None:
        self._store = store
        self._line = line
        self._tell = tell
        self._began = time.monotonic()
        self._act = ""
        self._drifted: set[str] = set()  # channels that were told, of the package in production
        self._seq = 0
        self.events: list[Event] = []
        self.happenings: list[Happening] = []

    @property
    def seconds(self) -> float:
        """Seconds since the demonstration began."""
        return time.monotonic() - self._began

    @property
    def seq(self) -> int:
        """The newest event that has been read."""
        return self._seq

    @property
    def is_training(self) -> bool:
        """Whether the controller has asked for a run that has not ended yet."""
        kinds = [e.kind for e in self.events if e.kind in ("trigger", "run.finished")]
        return kinds[-1:] == ["trigger"]

    @property
    def is_judging(self) -> bool:
        """Whether a challenger is in service beside the stable package."""
        rollout = fold(self.events)
        return bool(rollout.canary or rollout.shadow)

    def act(self, title: str) -> None:
        """Begin a part of the demonstration."""
        self._act = title

    def say(self, what: str, date: str = "") -> None:
        """Add a line of one's own."""
        happening = Happening(act=self._act, at_s=self.seconds, date=date, what=what)
        self.happenings.append(happening)
        self._tell(happening)

    def read(self, date: str = "") -> list[Event]:
        """Read new events, tell the ones that matter and return them all."""
        news = self._store.ledger.events(after=self._seq, line=self._line)
        for event in news:
            self._seq = event.seq
            self.events.append(event)
            sentence = self._sentence(event)
            if sentence:
                self.say(sentence, date)
        return news

    def wait_for_run(self, most_s: float, date: str = "") -> None:
        """Read on until no run is under way, or until the time is up."""
        until = time.monotonic() + most_s
        while self.is_training and time.monotonic() < until:
            time.sleep(_LOOK_S)
            self.read(date)

    def find(
        self, kind: str, *, after: int = 0, having: Callable[[Event], bool] = lambda _: True
    ) -> Event | None:
        """Return the first event of a kind behind a sequence number."""
        found = (e for e in self.events if e.kind == kind and e.seq > after and having(e))
        return next(found, None)

    def stable(self) -> str:
        """Return the package in production, as of the newest event that has been read."""
        stable = fold(self.events).stable
        return stable.package if stable else ""

    def _sentence(self, event: Event) -> str:
        body = event.body
        if event.kind == "watch":
            return self._drift(body)
        if event.kind == "trigger":
            reason = str(body["reason"])  # "labels: 219 labels since …": the trigger, then why
            why = reason.partition(": ")[2] or reason
            return f"the controller trains a challenger: {why}"
        if event.kind == "run.finished":
            return _finished(body)
        if event.kind == "deploy":
            return self._deployed(body)
        if event.kind == "serve.load_failed":
            return f"the server cannot load {_short(body['package'])}: {body['what']}"
        return ""

    def _deployed(self, body: Any) -> str:
        action = str(body["action"]).replace("_", " ")
        if action in ("deploy", "promote"):
            self._drifted = set()  # a new package has a new reference
        share = f" with {float(body['share']):.0%} of the traffic" if "share" in body else ""
        return f"{action} {_short(body['package'])}{share}: {body['reason']}"

    def _drift(self, body: Any) -> str:
        drifted = {
            f["name"]: f
            for f in body.get("findings", ())
            if f.get("drifted") and f["kind"] in ("input", "output")
        }
        fresh = sorted(set(drifted) - self._drifted)
        self._drifted |= set(drifted)
        told = [
            f"{n} (PSI {float(drifted[n]['statistic']):.2f}; chance alone reaches "
            f"{drifted[n]['null_q']:.2f})"
            for n in fresh
        ]
        return f"drift found in {', '.join(told)}" if told else ""


def _finished(body: Any) -> str:
    seconds = float(body.get("seconds") or 0.0)
    if body["outcome"] == "done":
        return f"{body['run']} made package {_short(body['package'])} in {seconds:.1f} s"
    why = " ".join(body.get("stop") or [str((body.get("problem") or {}).get("what", ""))])
    return f"{body['run']} {body['outcome']} after {seconds:.1f} s: {why}"


def _short(package: object) -> str:
    return str(package)[:_SHORT]
