"""From the ledger to what is served: a thread that watches deployments and loads packages."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from genba.core import tuning
from genba.core.problem import Problem
from genba.core.rollout import Placed, Rollout, fold
from genba.core.values import Event
from genba.serve.limits import Limits
from genba.serve.lines import Placement
from genba.serve.models import LoadedModel, load_model
from genba.serve.schema import same_requests
from genba.store.home import Store
from genba.store.signatures import find_signature

_log = logging.getLogger("genba.serve")
_DEPLOY: Final = "deploy"
_KINDS: Final = (_DEPLOY, tuning.KIND)
_INCOMPATIBLE: Final = "G710"


class Deployments:
    """Follows the `deploy` and `tune` events of all lines.

    A package that cannot be loaded is reported to the ledger and never served: a canary or shadow
    is left out, and in place of a stable one the line keeps what it has.

    Args:
        store: The ledger to follow and the blobs to load from.
        limits: Of the server.
        server: Its id, for the reports.
        place: Takes a placement to the event loop; called on this object's thread.
    """

    def __init__(
        self, store: Store, limits: Limits, server: str, place: Callable[[Placement], None]
    ) -> None:
        self._store = store
        self._limits = limits
        self._server = server
        self._place = place
        self._seq = 0
        self._rollouts: dict[str, Rollout] = {}
        self._tuned: dict[str, dict[str, float]] = {}  # package -> parameters as they were set
        self._behind: set[str] = set()  # lines whose rollout is not carried out yet
        self._served: dict[str, Placement] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="genba-deployments", daemon=True)

    def start(self) -> None:
        """Go on watching, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; waits for a package that is being loaded."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def poll(self) -> None:
        """Look for new deployments and parameters once and carry them out."""
        head, _ = self._store.ledger.head()
        if head != self._seq:
            events = self._store.ledger.events(after=self._seq, kinds=_KINDS)
            self._seq = max(head, events[-1].seq if events else 0)
            for event in events:
                self._take(event)
        for line in sorted(self._behind):
            self._follow(line, self._rollouts[line])
            self._behind.discard(line)  # only now: what raised is tried again

    def _take(self, event: Event) -> None:
        if event.kind == _DEPLOY:
            self._rollouts[event.line] = fold([event], self._rollouts.get(event.line))
        else:
            try:
                set_now = tuning.fold([event])
            except (KeyError, TypeError, ValueError):  # who wrote it did not go through `tune`
                _log.error("event %d sets no parameter", event.seq)
                return
            for package, values in set_now.items():
                self._tuned.setdefault(package, {}).update(values)
        if event.line in self._rollouts:
            self._behind.add(event.line)

    def _run(self) -> None:
        while not self._stopping.wait(self._limits.poll_s):
            try:
                self.poll()
            except Exception as error:  # noqa: BLE001  # without this thread nothing rolls back
                _log.error("deployments are not followed: %s", error)

    def _follow(self, line: str, rollout: Rollout) -> None:
        held = self._served.get(line) or Placement(line=line, rollout=Rollout(), models={})
        models: dict[str, LoadedModel] = {}
        failed: dict[str, str] = {}
        for package in _needed(rollout):
            try:
                models[package] = held.models.get(package) or self._load(package)
            except Problem as problem:
                failed[package] = problem.what
                self._report(line, package, problem)
        placement = self._fit(held, rollout, models, failed)
        tuned = {p: dict(self._tuned[p]) for p in placement.models if p in self._tuned}
        placement = replace(placement, parameters=tuned)
        self._served[line] = placement
        self._place(placement)

    def _load(self, package: str) -> LoadedModel:
        find_signature(self._store, package)  # refuses one that was recorded and is not valid
        return load_model(package, self._store.blobs.read, self._limits)

    def _fit(
        self,
        held: Placement,
        rollout: Rollout,
        models: dict[str, LoadedModel],
        failed: dict[str, str],
    ) -> Placement:
        """Turn what was asked for into what can be done."""
        if rollout.stable and rollout.stable.package in failed:
            _close(models, keep=held.models)
            return replace(held, failed=failed)
        stable = rollout.stable and models[rollout.stable.package]

        def usable(placed: Placed | None) -> Placed | None:
            if placed is None or placed.package in failed:
                return None
            theirs = models[placed.package].manifest.signature
            if stable and not same_requests(theirs, stable.manifest.signature):
                problem = _other_inputs(held.line, placed.package)
                failed[placed.package] = problem.what
                self._report(held.line, placed.package, problem)
                return None
            return placed

        possible = replace(
            rollout,
            canary=usable(rollout.canary),
            shadow=usable(rollout.shadow),
            previous=rollout.previous if rollout.previous in models else None,
        )
        needed = {package: models[package] for package in _needed(possible)}
        _close(models, keep={**held.models, **needed})
        return Placement(line=held.line, rollout=possible, models=needed, failed=failed)

    def _report(self, line: str, package: str, problem: Problem) -> None:
        _log.error("package %s of line %s is not served: %s", package, line, problem)
        self._store.ledger.append(
            "serve.load_failed",
            {"package": package, "code": problem.code, "what": problem.what},
            line=line,
            subject=package,
            key=f"serve.load_failed:{self._server}:{package}:{self._seq}",
        )


def _needed(rollout: Rollout) -> tuple[str, ...]:
    """Return what must be in memory: what is in service, and what a rollback returns to."""
    return (*rollout.packages, *((rollout.previous,) if rollout.previous else ()))


def _close(models: Mapping[str, LoadedModel], keep: Mapping[str, LoadedModel]) -> None:
    """Free what was loaded in vain."""
    for package in models.keys() - keep.keys():
        models[package].close()


def _other_inputs(line: str, package: str) -> Problem:
    return Problem(
        _INCOMPATIBLE,
        "The package takes other inputs or gives other outputs than the stable one, "
        "so it cannot answer the same requests.",
        where=package,
        tries=[f"genba approve {line}", f"genba rollback {line}", "genba explain G710"],
    )
