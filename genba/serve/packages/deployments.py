"""From the ledger to what is served: a thread that watches deployments and loads packages."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from genba.core import tuning
from genba.core.problem import Problem
from genba.core.rollout import Rollout, fold
from genba.core.values import Event, Manifest
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.placement import Placement
from genba.serve.limits import Limits
from genba.serve.packages.fitting import fit, needed
from genba.serve.packages.guard import Stopped, memory_cap
from genba.serve.packages.loading import CRASH, Loader
from genba.serve.packages.marks import Marker
from genba.serve.packages.shelf import Kept, Shelf
from genba.serve.packages.trial import resident_bytes
from genba.store.home import Store

_log = logging.getLogger("genba.serve")
_DEPLOY: Final = "deploy"
#: Somebody wants the packages of a line in memory, or out of it: body `{"loaded": true}`.
MEMORY: Final = "serve.memory"
_KINDS: Final = (_DEPLOY, tuning.KIND, CRASH, MEMORY)
_RELIEF_S: Final = 1.0  # between two looks at how much memory there is
_SUSPECT_AGAIN_S: Final = 3_600.0

#: Gives when a package of a line was last asked, by the monotonic clock; 0 for never.
LastUsed = Callable[[str, str], float]
#: Called when a line is loaded or unloaded as was asked for; with what went wrong, if anything.
Done = Callable[[Mapping[str, str]], None]


class Deployments:
    """Follows the `deploy` and `tune` events of all lines, and decides what is in memory.

    A package that cannot be loaded is reported to the ledger and never served: a canary or shadow
    is left out, and in place of a stable one the line keeps what it has, or goes back to what it
    had before. Packages that nobody asks sleep when memory is short.

    Args:
        store: The ledger to follow and the blobs to load from.
        limits: Of the server.
        server: Its id, for the reports.
        place: Takes a placement to the event loop; called on this object's thread.
        marker: Takes note of who computes.
        last_used: See `LastUsed`; called on this object's thread.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        server: str,
        place: Callable[[Placement], None],
        *,
        marker: Marker,
        last_used: LastUsed = lambda _line, _package: 0.0,
    ) -> None:
        self._store = store
        self._limits = limits
        self._server = server
        self._place = place
        self._last_used = last_used
        self._loader = Loader(store, limits, marker)
        self._seq = 0
        self._rollouts: dict[str, Rollout] = {}
        self._tuned: dict[str, dict[str, float]] = {}  # package -> parameters as they were set
        self._behind: set[str] = set()  # lines whose rollout is not carried out yet
        self._served: dict[str, Placement] = {}
        self._failed: dict[str, dict[str, str]] = {}  # line -> package -> why, since it changed
        self._shelf = Shelf(capacity_bytes=memory_cap(limits), stay_s=limits.stay_s)
        self._floor_bytes = resident_bytes()  # of the process without any package
        self._loaded_s: dict[str, float] = {}  # by package, monotonic
        self._unloaded: set[str] = set()  # lines that somebody wants out of memory
        self._called: deque[tuple[str, str]] = deque()  # (line, package), from any thread
        self._wanted: dict[str, str] = {}  # package -> line: somebody waits for it
        self._asked: deque[tuple[str, bool, Done]] = deque()
        self._suspected_s: dict[str, float] = {}  # package -> when it may be suspected again
        self._relieved_s = 0.0
        self._stopping = threading.Event()
        self._bell = threading.Event()
        self._thread = threading.Thread(target=self._run, name="genba-deployments", daemon=True)

    def start(self) -> None:
        """Go on watching, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; waits for a package that is being loaded, not for one being tried."""
        self._stopping.set()
        self._bell.set()
        self._loader.stop()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self, line: str, package: str) -> None:
        """Load a package that sleeps, as somebody asks it; may be called on any thread."""
        self._called.append((line, package))
        self._bell.set()

    def ask(self, line: str, loaded: bool, done: Done) -> None:
        """Put the packages of a line into memory, or out of it until further notice.

        What is out of memory answers 503, on every server of the home and after a restart too.

        Args:
            line: Its name.
            loaded: Whether they shall be in memory.
            done: Called on this object's thread with the packages that failed, and why.
        """
        self._asked.append((line, loaded, done))
        self._bell.set()

    def poll(self) -> None:
        """Look once for new deployments, parameters, crashes and wishes, and carry them out."""
        if not self._seq:
            self._loader.inquest()
        asked = [self._asked.popleft() for _ in range(len(self._asked))]
        for line, loaded, _ in asked:
            self._store.ledger.append(MEMORY, {"loaded": loaded, "server": self._server}, line=line)
        head, _ = self._store.ledger.head()
        if head != self._seq:
            events = self._store.ledger.events(after=self._seq, kinds=_KINDS)
            self._seq = max(head, events[-1].seq if events else 0)
            for event in events:
                self._take(event)
        self._hear()
        for line in sorted(self._behind):
            self._follow(line, self._rollouts[line])
            self._behind.discard(line)  # only now: what raised is tried again
        self._loader.rest()
        for line, _, done in asked:
            done(self._failed.get(line, {}))
        self._relieve()

    def _take(self, event: Event) -> None:
        if event.kind == _DEPLOY:
            self._rollouts[event.line] = fold([event], self._rollouts.get(event.line))
            self._failed.pop(event.line, None)  # another placement, another attempt
        elif event.kind == CRASH:
            self._loader.take(event)
        elif event.kind == MEMORY:
            loaded = event.body.get("loaded") is True
            (self._unloaded.discard if loaded else self._unloaded.add)(event.line)
            if loaded and (rollout := self._rollouts.get(event.line)):
                self._wanted.update(dict.fromkeys(rollout.packages, event.line))
        elif not self._take_parameters(event):
            return
        if event.line in self._rollouts:
            self._behind.add(event.line)

    def _take_parameters(self, event: Event) -> bool:
        try:
            set_now = tuning.fold([event])
        except (KeyError, TypeError, ValueError):  # who wrote it did not go through `tune`
            _log.error("event %d sets no parameter", event.seq)
            return False
        for package, values in set_now.items():
            self._tuned.setdefault(package, {}).update(values)
        return True

    def _hear(self) -> None:
        """Take in who was called, and look again at those for whom there is room by now."""
        for _ in range(len(self._called)):
            line, package = self._called.popleft()
            if line not in self._unloaded:
                self._wanted[package] = line
        for package, line in list(self._wanted.items()):
            served = self._served.get(line)
            if not served or package not in served.asleep:
                del self._wanted[package]
            elif self._room(package) is not None:
                self._behind.add(line)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.wait(self._limits.poll_s)
            self._bell.clear()
            try:
                if not self._stopping.is_set():
                    self.poll()
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001  # without this thread nothing rolls back
                _log.error("deployments are not followed: %s", error)

    def _follow(self, line: str, rollout: Rollout) -> None:
        failed = dict(self._failed.get(line, {}))
        manifests: dict[str, Manifest] = {}
        models: dict[str, LoadedModel] = {}
        for package in needed(rollout):
            try:
                self._ready(line, package, rollout, manifests, models)
            except Problem as problem:
                manifests.pop(package, None)
                if package not in failed:
                    failed[package] = problem.what
                    self._report(line, package, problem)
        held = self._held(line)
        placement, strange = fit(held, rollout, manifests, models, failed)
        for other in strange:
            failed[other.where] = other.what
            self._report(line, other.where, other)
        self._failed[line] = failed
        self._set(placement)
        for package in models.keys() - held.models.keys() - placement.models.keys():
            models[package].close()  # loaded in vain

    def _held(self, line: str) -> Placement:
        return self._served.get(line) or Placement(line=line, rollout=Rollout(), models={})

    def _ready(
        self,
        line: str,
        package: str,
        rollout: Rollout,
        manifests: dict[str, Manifest],
        models: dict[str, LoadedModel],
    ) -> None:
        """Check a package, and load it where there is room."""
        if package in self._failed.get(line, {}):
            return
        stable = rollout.stable is not None and rollout.stable.package == package
        manifests[package] = self._loader.check(package, stable=stable)
        if line in self._unloaded:
            return
        held = self._held(line).models
        if package in held:
            models[package] = held[package]
            return
        urgent = package in rollout.packages or package in self._wanted
        if self._make_room(package, beside=models, urgent=urgent):
            models[package] = self._loader.load(package)
            # What nobody asks for yet is the first to make room for others.
            self._loaded_s[package] = time.monotonic() if urgent else 0.0
            self._wanted.pop(package, None)

    def _set(self, placement: Placement) -> None:
        tuned = {p: dict(self._tuned[p]) for p in placement.models if p in self._tuned}
        placement = replace(placement, parameters=tuned)
        self._served[placement.line] = placement
        self._place(placement)

    # Memory.

    def _kept(self) -> dict[str, Kept]:
        return {
            package: Kept(
                bytes=self._loader.sizes.get(package, 0),
                loaded_s=self._loaded_s.get(package, 0.0),
                used_s=self._last_used(line, package),
            )
            for line, placement in self._served.items()
            for package in placement.models
        }

    def _room(self, package: str, beside: Collection[str] = ()) -> list[str] | None:
        """Return who leaves when a package comes; what it must be beside of does not."""
        kept = self._kept()
        size = sum(self._loader.sizes.get(one, 0) for one in (package, *beside))
        others = {name: one for name, one in kept.items() if name not in beside}
        return self._shelf.make_room(others, size, time.monotonic())

    def _make_room(self, package: str, *, beside: Collection[str], urgent: bool) -> bool:
        """Say whether a package may be loaded; others are put to sleep for it if need be.

        What a line only keeps to return to pushes nobody out.
        """
        if not urgent:
            size = self._loader.sizes.get(package, 0)
            together = {*self._kept(), *beside}
            taken = sum(self._loader.sizes.get(one, 0) for one in together)
            return taken + size <= self._shelf.capacity_bytes
        leaving = self._room(package, beside)
        for one in leaving or ():
            self._put_to_sleep(one)
        return leaving is not None

    def _put_to_sleep(self, package: str) -> None:
        """Free a package; what it is computing is finished first."""
        for placement in list(self._served.values()):
            if package in placement.models:
                models = {p: model for p, model in placement.models.items() if p != package}
                self._set(replace(placement, models=models, asleep=placement.asleep | {package}))

    def _relieve(self) -> None:
        """When the process has grown beyond what its packages need, find out who lets it grow."""
        now = time.monotonic()
        if not self._limits.trial_s or now - self._relieved_s < _RELIEF_S:
            return
        self._relieved_s = now
        if resident_bytes() <= self._floor_bytes + self._shelf.capacity_bytes:
            return
        kept = self._kept()
        due = [p for p in kept if self._suspected_s.get(p, now) <= now]
        if not due:
            return
        suspect = max(due, key=lambda p: kept[p].since_s)  # who worked last
        self._suspected_s[suspect] = now + _SUSPECT_AGAIN_S
        if self._loader.suspect(suspect) is not None:
            self._behind.update(line for line, p in self._served.items() if suspect in p.models)

    def _report(self, line: str, package: str, problem: Problem) -> None:
        _log.error("package %s of line %s is not served: %s", package, line, problem)
        self._store.ledger.append(
            "serve.load_failed",
            {"package": package, "code": problem.code, "what": problem.what},
            line=line,
            subject=package,
            key=f"serve.load_failed:{self._server}:{package}:{self._seq}",
        )
