"""Everything a package has to pass before it may answer: signed, whole, tried, and not a killer."""

import time
from collections.abc import Mapping
from typing import Final

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.values import Event, Manifest
from genba.edge.package import load
from genba.serve.lanes.models import LoadedModel, load_model
from genba.serve.lanes.probe import Probe, share
from genba.serve.limits import Limits
from genba.serve.packages.guard import Trials, crashing
from genba.serve.packages.marks import Death, Marker, deaths
from genba.serve.packages.trial import resident_bytes
from genba.store.home import Store
from genba.store.signatures import check_own

#: A server died while it computed a package.
CRASH: Final = "serve.crashed"
_DAY_MS: Final = 86_400_000
_SHARED: Final = 0.5  # of a crash, when it is not clear which of several packages it was
MARKS: Final = "marks"  # folder in the home


class Loader:
    """Loads packages for one server and remembers what each of them did to servers.

    Args:
        store: Where packages and the ledger are.
        limits: Of the server.
        marker: Takes note of who computes.
    """

    def __init__(self, store: Store, limits: Limits, marker: Marker) -> None:
        self.sizes: dict[str, int] = {}  # bytes of memory by package, once it is known
        self._store = store
        self._limits = limits
        self._marker = marker
        self._trials = Trials(store.path, limits)
        self._probe = Probe(store.path, limits.cores or share())
        self._manifests: dict[str, Manifest] = {}
        self._crashes: dict[str, float] = {}
        self._how: dict[str, str] = {}
        self._leaks: dict[str, Problem] = {}

    def take(self, event: Event) -> None:
        """Remember a crash, unless it is long ago."""
        if time.time_ns() // 1_000_000 - event.time_ms > _DAY_MS:
            return
        package = str(event.body.get("package", event.subject))
        weight = 1.0 if event.body.get("alone") is True else _SHARED
        self._crashes[package] = self._crashes.get(package, 0.0) + weight
        self._how[package] = str(event.body.get("how", ""))

    def inquest(self) -> list[Death]:
        """Report to the ledger how servers of this home died, if that is still to be told."""
        with deaths(self._store.path / MARKS) as found:
            for death in found:
                for package in death.packages:
                    self._report(death, package)
        return found

    def check(self, package: str, *, stable: bool) -> Manifest:
        """Say whether a package may be loaded, and what it is.

        Args:
            package: Its id.
            stable: Whether the line has nothing else: then one crash may be bad luck.

        Raises:
            Problem: G605 for a package this home has not signed, G302 or G604 for bytes that are
                missing or altered, G775 for one that crashes servers, G777 for one that leaks; and
                as for `Trials.passed`.
        """
        self.check_conduct(package, stable=stable)
        manifest = self._manifests.get(package)
        if manifest is None:
            read = self._store.blobs.read
            manifest = load(read(package), read, expect=package).manifest
            check_own(self._store, package)
            if self._limits.trial_s:
                self.sizes[package] = self._trials.passed(package, manifest).bytes
            self._manifests[package] = manifest
        return manifest

    def check_conduct(self, package: str, *, stable: bool) -> None:
        """Refuse a package that does harm to servers.

        Raises:
            Problem: G775, G776 or G777.
        """
        if package in self._leaks:
            raise self._leaks[package]
        allowed = self._limits.crashes if stable else 1
        if self._crashes.get(package, 0.0) >= allowed:
            raise crashing(package, self._how[package])

    def load(self, package: str) -> LoadedModel:
        """Load a package that `check` has let pass.

        Raises:
            Problem: As for `load_model`.
        """
        before = resident_bytes()
        self._marker.enter(self._marker.number(package))
        try:
            with self._marker.patience():
                model = load_model(package, self._store.blobs.read, self._limits, self._probe)
        finally:
            self._marker.leave()
        self.sizes.setdefault(package, max(resident_bytes() - before, 0))
        _mark(model, self._marker)
        return model

    def suspect(self, package: str) -> Problem | None:
        """Try again, for longer, a package that may be what lets memory grow."""
        try:
            self._trials.attempt(package, self._manifests[package], self._limits.suspect_s)
        except Problem as problem:
            self._leaks[package] = problem
            return problem
        return None

    def rest(self) -> None:
        """Nothing more is to be loaded for now."""
        self._trials.rest()

    def stop(self) -> None:
        """Break off what is being tried; may be called on any thread."""
        self._trials.close()

    def _report(self, death: Death, package: str) -> None:
        record = self._store.ledger.get("package", package) or {}
        body = {
            "package": package,
            "server": death.server,
            "how": death.how,
            "alone": len(death.packages) == 1,
        }
        self._store.ledger.append(
            CRASH,
            body,
            line=str(record.get("line", "")),
            subject=package,
            key=f"{CRASH}:{death.server}:{package}",
        )


def _mark(model: LoadedModel, marker: Marker) -> None:
    """Have a package noted whenever it computes; it costs a quarter of a microsecond."""
    number, run = marker.number(model.package), model.run

    def marked(tensors: Mapping[str, Array], rows: int) -> dict[str, Array]:
        marker.enter(number)
        try:
            return run(tensors, rows)
        finally:
            marker.leave()

    if model.talks is not None:
        model.busy = marker.steady(number)
    model.run = marked  # type: ignore[method-assign]  # one call deeper, for every kind of lane
