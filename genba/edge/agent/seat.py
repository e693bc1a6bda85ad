"""What answers on a device: the release in service and, beside it, the one on trial.

The process that answers owns a seat. It follows the agent's state: a release in its canary gets its
share of the inputs, one in shadow gets all of them after the answer went out, and both are counted.
What is counted is written down now and then, for the agent to judge.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from genba.core.problem import Problem
from genba.edge.agent.arriving import Arriving
from genba.edge.agent.counting import Answered, Canary, tally_of
from genba.edge.agent.observed import Counts, Stretch, read_counts, write_counts
from genba.edge.agent.record import FOLDER, Record
from genba.edge.agent.rules import Tally
from genba.edge.agent.values import Healthy, Install, Started, State
from genba.edge.clocks import Clock, SystemClock

_WRITE_MS: Final = 5_000  # between two times that the counts are written down
_HEALTHY: Final = 5  # answers of every release, and so long, after which a start counts as good
_HEALTHY_MS: Final = 30_000
_LOOK_MS: Final = 200  # between two looks at whether the agent decided something


class Answerer(Protocol):
    """A release that answers, with its envelope around it."""

    def answer(self, sample: Any) -> Answered:
        """Answer one sample."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


#: Opens a release: what the agent says of it, and the role it takes: active, canary or shadow.
Make = Callable[[Install, str], Answerer]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer, and who gave it."""

    answer: Answered
    role: str  # active, canary or shadow
    release: int
    package: str


@dataclass(slots=True)
class _Chair:
    """One release that is loaded."""

    install: Install
    role: str
    answerer: Answerer
    canary: Canary
    tally: Tally = field(default_factory=Tally)
    began_ms: int = 0
    span_ms: int = 0  # that was counted before it was loaded
    answered: int = 0  # since it was loaded

    def stretch(self, now_ms: int) -> Stretch:
        """Return what is written down of it."""
        return Stretch(
            release=self.install.release,
            phase=self.install.phase,
            since_ms=self.install.since_ms,
            tally=replace(self.tally, span_ms=self.span_ms + now_ms - self.began_ms),
        )


class Seat:
    """Answers with what the agent put in service.

    Args:
        state: The folder of the device.
        line: That it runs.
        make: Opens a release; see `genba.edge.agent.opening.open_slot`.
        clock: Of the device.
        background: Open what goes on trial on a thread.

    Raises:
        Problem: G687 when nothing is in service; what `make` raises for the release in service.
    """

    def __init__(
        self,
        state: Path,
        line: str,
        make: Make,
        clock: Clock | None = None,
        *,
        background: bool = True,
    ) -> None:
        self._folder = state / FOLDER
        self._record = Record(self._folder, line)
        self._make = make
        self._clock = clock or SystemClock()
        self._background = background
        self._arriving: Arriving[Answerer] | None = None
        self._lock = threading.RLock()
        self._chairs: dict[str, _Chair] = {}  # by role of the state: active, candidate
        self._beside = Stretch(release=0, phase="", since_ms=0)  # the active one, in a trial
        self._seen: tuple[int, int] | None = None
        self._looked_ms = self._written_ms = self._began_ms = self._clock.elapsed_ms()
        self._unhealthy = True
        self.trouble = ""
        self._begin()

    @property
    def release(self) -> int:
        """The release in service."""
        return self._chairs["active"].install.release

    @property
    def install(self) -> Install:
        """What the agent says of the release in service."""
        return self._chairs["active"].install

    def answer(self, sample: Any, key: str = "") -> Told:
        """Answer one sample with the release whose turn it is.

        Args:
            sample: As the answerers take it.
            key: What decides who answers in a canary; the same key is always answered by the same
                release. The entity, where there are several, else the id of the reading.
        """
        with self._lock:
            self._look()
            chair = self._turn(key)
            try:
                answer = chair.answerer.answer(sample)
            except Exception:
                self._count(chair, None)
                raise
            self._count(chair, answer)
            return Told(answer, chair.role, chair.install.release, chair.install.package)

    def beside(self, sample: Any, told: Told) -> Told | None:
        """Let a release in shadow answer too, after the answer went out; None without one."""
        with self._lock:
            chair = self._chairs.get("candidate")
            if chair is None or chair.role != "shadow" or told.role != "active":
                return None
            try:
                answer = chair.answerer.answer(sample)
            except Exception as error:  # noqa: BLE001  # what is on trial may not disturb the rest
                self.trouble = f"release {chair.install.release} in shadow: {error}"
                self._count(chair, None)
                return None
            self._count(chair, answer, told.answer)
            return Told(answer, "shadow", chair.install.release, chair.install.package)

    def write(self) -> None:
        """Write the counts down."""
        with self._lock:
            now_ms = self._clock.elapsed_ms()
            candidate, active = (self._chairs.get(role) for role in ("candidate", "active"))
            counts = Counts(
                candidate=candidate.stretch(now_ms) if candidate else None,
                active=active.stretch(now_ms) if active else None,
                beside=self._beside if candidate else None,
            )
            self._written_ms = now_ms
            try:
                write_counts(self._folder, counts)
            except Problem as problem:  # a full disk makes a trial longer, nothing else
                self.trouble = str(problem)

    def close(self) -> None:
        """Write the counts down and let go of the releases; an orderly end is no crash."""
        with self._lock:
            self.write()
            if self._unhealthy:
                self._take_healthy()
            self._drop_arriving()
            for chair in self._chairs.values():
                chair.answerer.close()
            self._chairs.clear()

    def _begin(self) -> None:
        """Count the start before anything is loaded: what crashes while loading counts too."""
        self._record.step(Started(), self._clock.now_ms())
        self._open(self._record.read().state)
        if "active" not in self._chairs:
            raise Problem(
                "G687",
                "No release is in service on this device.",
                where=str(self._folder),
                tries=["genba-edge update", "genba-edge status", "genba explain G687"],
            )

    def _look(self) -> None:
        now_ms = self._clock.elapsed_ms()
        if now_ms - self._looked_ms < _LOOK_MS:
            return
        self._looked_ms = now_ms
        arrived = self._arriving is not None and self._arriving.ready(self._tell)
        if self._stamp() != self._seen or arrived:
            self._open(self._record.read().state)
        if now_ms - self._written_ms >= _WRITE_MS:
            self.write()

    def _tell(self, trouble: str) -> None:
        self.trouble = trouble

    def _stamp(self) -> tuple[int, int] | None:
        try:
            stat = self._record.path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    def _open(self, state: State) -> None:
        """Load what the state names and is not loaded, and let go of the rest."""
        self._seen = self._stamp()
        counts = read_counts(self._folder)
        self._promote(state.active)
        self._seat("active", state.active, counts)
        self._seat("candidate", _on_trial(state), counts)
        trial = self._chairs.get("candidate")
        if trial is not None and self._beside.since_ms != trial.install.since_ms:
            known = counts.candidate is not None and counts.candidate.is_of(trial.install)
            self._beside = (counts.beside if known else None) or Stretch(
                release=state.active.release if state.active else 0,
                phase="active",
                since_ms=trial.install.since_ms,
            )

    def _promote(self, active: Install | None) -> None:
        """Let what was on trial, and is loaded, take the place of what was in service."""
        trial, before = self._chairs.get("candidate"), self._chairs.get("active")
        if active is None or trial is None or trial.install.root != active.root:
            return
        if before is not None and before.install.root == active.root:
            return
        if before is not None:
            before.answerer.close()
        self._chairs["active"] = self._chairs.pop("candidate")

    def _seat(self, name: str, install: Install | None, counts: Counts) -> None:
        chair = self._chairs.get(name)
        if chair is not None and install is not None and chair.install.root == install.root:
            if not _same_stretch(chair.install, install):
                chair = self._chair(name, install, chair.answerer, counts, chair.answered)
            chair.install = install
            self._chairs[name] = chair
            return
        answerer = None if install is None else self._opened(name, install)
        if answerer is None and name == "active":
            return  # what answers goes on answering
        if chair is not None:
            del self._chairs[name]
            chair.answerer.close()
        if answerer is not None and install is not None:
            self._chairs[name] = self._chair(name, install, answerer, counts)

    def _opened(self, name: str, install: Install) -> Answerer | None:
        """Open a release; one on trial is opened on a thread, so that nobody waits for it."""
        required = name == "active"
        if not required and self._background:
            return self._arrived(install)
        try:
            return self._make(install, "active" if required else _role(install))
        except Exception as error:
            if required and "active" not in self._chairs:
                raise
            self.trouble = f"release {install.release} cannot be opened: {error}"
            return None

    def _arrived(self, install: Install) -> Answerer | None:
        """Return a release that was opened on a thread; None while it is being opened."""
        if self._arriving is not None and self._arriving.install.root == install.root:
            return self._arriving.take()
        self._drop_arriving()
        self._arriving = Arriving(install, lambda: self._make(install, _role(install)))
        return None

    def _drop_arriving(self) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.drop()

    def _chair(
        self, name: str, install: Install, answerer: Answerer, counts: Counts, answered: int = 0
    ) -> _Chair:
        known = counts.active if name == "active" else counts.candidate
        before = known.tally if known is not None and known.is_of(install) else Tally()
        return _Chair(
            install=install,
            role="active" if name == "active" else _role(install),
            answerer=answerer,
            canary=Canary(install.plan.canary_share, install.root),
            tally=before,
            began_ms=self._clock.elapsed_ms(),
            span_ms=before.span_ms,
            answered=answered,
        )

    def _turn(self, key: str) -> _Chair:
        active, trial = self._chairs["active"], self._chairs.get("candidate")
        if trial is None or trial.role != "canary":
            return active
        return trial if trial.canary.takes(key) else active

    def _count(self, chair: _Chair, answer: Answered | None, of: Answered | None = None) -> None:
        more = tally_of(answer, of)
        chair.tally = chair.tally.add(more)
        if chair.role == "active" and "candidate" in self._chairs:
            self._beside = replace(self._beside, tally=self._beside.tally.add(more))
        chair.answered += answer is not None
        lasted_ms = self._clock.elapsed_ms() - self._began_ms
        if self._unhealthy and lasted_ms >= _HEALTHY_MS:
            self._unhealthy = any(one.answered < _HEALTHY for one in self._chairs.values())
            if not self._unhealthy:
                self._take_healthy()

    def _take_healthy(self) -> None:
        self._unhealthy = False
        with suppress(Problem):  # a full disk: the next start tells
            self._record.step(Healthy(), self._clock.now_ms())


def _role(install: Install) -> str:
    return "canary" if install.phase == "canary" else "shadow"


def _same_stretch(one: Install, other: Install) -> bool:
    return (one.phase, one.since_ms) == (other.phase, other.since_ms)


def _on_trial(state: State) -> Install | None:
    candidate = state.candidate
    return candidate if candidate and candidate.phase in ("shadow", "canary") else None
