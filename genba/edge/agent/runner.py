"""The agent at work: asks the factory, fetches, verifies, tests, and lets the rules decide.

What has to be done follows from the durable state, and every piece of work can be done again, so
the runner holds nothing that matters: it may be killed anywhere.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from genba.core import io
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.edge.agent.clock import TrustedTime
from genba.edge.agent.enrolment import Enrolment, not_enrolled
from genba.edge.agent.factory import Factory
from genba.edge.agent.fetching import AS_USUAL, Limits, Stock
from genba.edge.agent.listing import bad_list, read_listing
from genba.edge.agent.observed import observed, read_counts
from genba.edge.agent.opening import open_slot
from genba.edge.agent.orders import decisions, list_path, read_orders
from genba.edge.agent.record import FOLDER, Record, damaged
from genba.edge.agent.states import due, free_slot
from genba.edge.agent.values import (
    Event,
    Failed,
    Fetched,
    Filled,
    Observed,
    Offer,
    Offered,
    Proven,
    Rejected,
    State,
    Verified,
)
from genba.edge.clocks import Clock, SystemClock
from genba.edge.memory import Memory

_LOCK: Final = "agent.lock"
_TRUSTED: Final = "trusted.json"
_TEST_S: Final = 300.0
_STEPS: Final = 12  # of work in one tick; there are fewer in the longest way
#: What makes a release useless on this device, whatever is tried again. Too slow (G677) and expired
#: (G675) are not among them: a busy moment or a wrong clock pass.
_FATAL: Final = frozenset(
    {"G601", "G603", "G604", "G605", "G609", "G670", "G671", "G672", "G673", "G674", "G676"}
)

Tester = Callable[[Path, Path, str, int], None]


class Agent:
    """Runs one line on one device.

    Args:
        state: The folder of the device.
        enrolment: What it was given.
        clock: Of the device.
        limits: What it may use.
        tester: Runs the self-test of a release: its folder, the device's folder and the content
            that was verified; in a process of its own by default.
        factory: Where to ask; what the enrolment says by default.
    """

    def __init__(
        self,
        state: Path,
        enrolment: Enrolment,
        *,
        clock: Clock | None = None,
        limits: Limits = AS_USUAL,
        tester: Tester | None = None,
        factory: Factory | None = None,
    ) -> None:
        self.state_dir = state
        self.folder = state / FOLDER
        self.enrolment = enrolment
        self.record = Record(self.folder, enrolment.line)
        self.stock = Stock(self.folder)
        self.factory = factory or self._factory()
        self._limits = limits
        self._tester = tester or self_test
        kept = self._trusted()
        self._metadata: dict[str, str] = dict(kept.get("metadata") or {})
        floor = max(int(kept.get("floor_ms") or 0), Memory.at(state).floor_ms)
        self.time = TrustedTime(clock or SystemClock(), floor)

    @property
    def state(self) -> State:
        """What is on the disk now."""
        return self.record.read().state

    def take(self, event: Event) -> State:
        """Take an event in, durable on return."""
        return self.record.step(event, self.time.now_ms())

    def ask(self) -> State:
        """Ask the factory what this device shall run.

        Raises:
            Problem: G680 to G684, when it cannot be reached or its metadata is not accepted; what
                this device runs stays as it is.
        """
        if self.factory is None:
            raise not_enrolled("It was enrolled without the address of a factory.")
        with self._alone():
            return self._ask(self.factory)

    def work(self) -> State:
        """Do what is due, until something has to be waited for.

        Raises:
            Problem: What stops it for now, such as a full disk or a factory that is gone; a
                release that is of no use is refused, which is no Problem. G687 when another
                process is at it.
        """
        with self._alone():
            return self._work()

    def _ask(self, factory: Factory) -> State:
        client = resolve("update", "client")
        fresh = client(self.enrolment.root.encode(), self._metadata, factory)
        device, line = self.enrolment.device, self.enrolment.line
        try:
            plan = fresh.refresh(
                self.time, lambda plan: list_path(line, read_orders(plan, device, line).release)
            )
        finally:
            self.time.raise_to(fresh.issued_ms)
            self._keep()
        orders = read_orders(plan, device, line)
        news = list(decisions(orders, self.state))
        for rejected in (e for e in news if isinstance(e, Rejected)):
            self.take(rejected)
        offered = self._offered(orders.release, fresh)
        if offered is not None:
            self.take(offered)
        for confirmed in (e for e in news if not isinstance(e, Rejected)):
            self.take(confirmed)
        return self.state

    def _work(self) -> State:
        for _ in range(_STEPS):
            state = self.state
            effect = due(state)
            if effect not in ("fetch", "fill", "verify", "test"):
                break
            try:
                event = self._do(effect, state)
            except Problem as problem:
                if problem.code not in _FATAL:
                    raise
                event = Failed(reason=f"{problem.code} {problem.what} {problem.why}".strip())
            self.take(event)
        return self._watch()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time fetch and fill slots."""
        io.make_dirs_durable(self.folder)
        with io.explained(self.folder):
            lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise Problem(
                "G687",
                "The agent of this device is at work.",
                where=str(self.folder),
                why="It acts on what was decided by itself.",
                tries=["genba-edge status"],
            ) from error
        finally:
            os.close(lock)
            if self.factory is not None:
                self.factory.close()

    def _watch(self) -> State:
        """Hold what the releases did against their plans, and remember what is used."""
        state = self.take(observed(read_counts(self.folder), self.state))
        if state.candidate is not None and state.candidate.phase == "confirmed":
            state = self.take(Observed())
        self._accept(state)
        if state.offer is None:
            self.stock.sweep(None)
        return state

    def _accept(self, state: State) -> None:
        """Never again take an older release than the one in service (and what it is made of)."""
        active = state.active
        known = Memory.at(self.state_dir).of(state.line)
        newest = known.newest.release if known else 0
        if active is None or active.release <= newest:
            return
        release = open_slot(self.state_dir, active, state.line, self.time.now_ms())
        release.memory.accept(state.line, release.mark)
        self.time.raise_to(release.statement.made_ms)

    def _do(self, effect: str, state: State) -> Event:
        if effect == "fetch":
            assert state.offer is not None
            self.stock.fetch(state.offer, free_slot(state), self.factory, self._limits)
            return Fetched()
        if effect == "fill":
            assert state.offer is not None
            slot = free_slot(state)
            self.stock.fill(state.offer, slot)
            return Filled(slot=slot)
        candidate = state.candidate
        assert candidate is not None
        release = open_slot(self.state_dir, candidate, state.line, self.time.now_ms())
        if effect == "verify":
            listing = self.stock.slots.listing(candidate.slot)
            plan = listing.plan if listing else candidate.plan
            return Verified(package=release.package.id, root=release.signed.root, plan=plan)
        self._tester(release.folder, self.state_dir, candidate.root, self.time.now_ms())
        return Proven()

    def _offered(self, release: int, fresh: Any) -> Event | None:
        """Return the offer of a release, with its list on the disk; None for one of no interest."""
        path = list_path(self.enrolment.line, release)
        if not release or self.state.refusal(release) is not None:
            return None
        digest = fresh.digest(path)
        if not digest:
            raise bad_list(f"The plan names release {release}, which was never signed.")
        listing = self.stock.list_of(digest)
        if listing is None and not self._has(release):
            data = fresh.read(path)
            listing = read_listing(data)
            if (listing.line, listing.release) != (self.enrolment.line, release):
                raise bad_list(f"{path} is the list of another release.")
            self.stock.keep_list(data)
        size = listing.size_bytes if listing else 0
        return Offered(offer=Offer(release=release, digest=digest, size_bytes=size))

    def _has(self, release: int) -> bool:
        held = (self.state.active, self.state.candidate)
        return any(i is not None and i.release >= release for i in held)

    def _factory(self) -> Factory | None:
        if not self.enrolment.url:
            return None
        certificate = None
        if self.enrolment.certificate:
            certificate = self.folder / "factory.pem"
            if not certificate.is_file():
                io.write_durable(certificate, self.enrolment.certificate.encode())
        return Factory(self.enrolment.url, self.enrolment.key, certificate=certificate)

    def _trusted(self) -> dict[str, Any]:
        path = self.folder / _TRUSTED
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            floor, metadata = int(found["floor_ms"]), dict(found["metadata"])
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            # Without it an old repository would look new, so nobody else decides to go on.
            raise damaged(path, str(error)) from error
        return {"floor_ms": floor, "metadata": metadata}

    def _keep(self) -> None:
        body = {"floor_ms": self.time.floor_ms, "metadata": self._metadata}
        text = json.dumps(body, indent=1, ensure_ascii=False)
        data = f"{text}\n".encode()
        io.make_dirs_durable(self.folder)
        io.write_durable(self.folder / _TRUSTED, data)


def self_test(folder: Path, state: Path, root: str, now_ms: int) -> None:
    """Run the self-test of a release in a process of its own, with a limit on its time.

    Args:
        folder: Of the release.
        state: Of the device.
        root: The content that was verified.
        now_ms: Trusted time, ms since 1970 UTC.

    Raises:
        Problem: G609 when it crashes or takes too long; whatever it says otherwise.
    """
    words = (str(folder), str(state), root, str(now_ms))
    command = [sys.executable, "-m", "genba.edge.agent.trial", *words]
    try:
        done = subprocess.run(  # noqa: S603  # this Python, and paths of our own
            command, capture_output=True, timeout=_TEST_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _crashed(folder, f"It was not done after {_TEST_S:.0f} s.") from error
    if done.returncode == 0:
        return
    try:
        told = json.loads(done.stdout)
        problem = Problem(
            told["code"], told["what"], where=told["where"], why=told["why"], tries=told["try"]
        )
    except (ValueError, KeyError, TypeError):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        ended = f"It ended with {done.returncode}. {''.join(last)}"
        raise _crashed(folder, ended.strip()) from None
    raise problem


def _crashed(folder: Path, why: str) -> Problem:
    return Problem(
        "G609",
        "The self-test of the release did not end well.",
        where=str(folder),
        why=why,
        tries=[f"genba-edge self-test {folder}", "genba explain G609"],
    )
