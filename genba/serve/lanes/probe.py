"""How a package uses the cores best: tried when it is first loaded, remembered for this machine.

How many threads a graph shall have, and how many batches shall be computed at the same time, cannot
be told from the graph: on one network two threads were the best choice in one runtime and the worst
in another. So each way is tried for a moment with real samples. Nothing that changes an answer is
varied: precision and graph stay as they were gated.
"""

import json
import logging
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from genba.core import io
from genba.core.codec import decode
from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.core.protocols import Array, Engine, JsonObject, Layout, Spreads
from genba.core.resolve import resolve
from genba.edge.package import LoadedPackage
from genba.serve.lanes.curve import stopwatch
from genba.serve.process.loopback import requests_per_s
from genba.targets.probe import fingerprint, probe

_log = logging.getLogger("genba.serve")
_FOLDER: Final = "layouts"
_FORMAT: Final = 1  # of what is remembered; another one is measured again
_PROBE_S: Final = 2.0  # for all layouts of a package, unless a single trial takes longer
_TRIAL_S: Final = 0.2  # of one layout with all its runners
_ROUNDS: Final = 2  # the better one counts: what disturbs a trial only ever slows it down
_BATCH: Final = 4  # rows per batch of a trial
_SINGLES: Final = 5  # runs of one row; the shortest says how long a lone request takes
_ENOUGH: Final = 0.95  # of the best rows per second, where less threads or waiting decide
_QUIET: Final = 0.1  # share of the time that threads waited for a core; more is a disturbance
_DISTURBED_S: Final = 60.0  # from the child where a package is tried to the server that loads it
_LEAST_SHARE: Final = 0.2  # no rate is taken for more than five times what was measured
_SEVERAL: Final = 2
_ASKED_S: Final = 0.5  # of each number of processes
_GAIN: Final = 1.3  # twice as many processes must answer so much more
_SHORTER: Final = 0.8  # a lone request must gain so much for more threads to be taken

Samples = Callable[[int], Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One layout and what was measured with it."""

    settings: dict[str, Any]
    runners: int
    rows_per_s: float  # of all runners together
    cpu_ms: float  # per row, of the whole process
    latency_ms: float  # of one row while nothing else runs
    waited: float = 0.0  # share of the time that its threads wanted to run and could not

    @property
    def quiet_rows_per_s(self) -> float:
        """Rows per second, had nothing else wanted the cores."""
        return _undisturbed(self.rows_per_s, self.waited)

    @property
    def threads(self) -> int:
        """Threads that may compute at the same time, as far as the settings tell."""
        threads = int(self.settings.get("threads", 1))
        return threads * max(self.runners, int(self.settings.get("streams", 1)))

    def describe(self) -> dict[str, Any]:
        """Return it as JSON for people."""
        return {
            **{n: v for n, v in self.settings.items() if n in ("threads", "streams")},
            "runners": self.runners,
            "rows_per_s": round(self.rows_per_s, 1),
            "cpu_ms_per_row": round(self.cpu_ms, 3),
            "latency_ms": round(self.latency_ms, 3),
            "waited": round(self.waited, 3),
        }


class Probe:
    """Finds the best layout of each package and remembers it in the home.

    Args:
        home: Where layouts are remembered.
        cores: That one server process may use.
    """

    def __init__(self, home: Path, cores: int) -> None:
        self._folder = home / _FOLDER
        self._cores = cores

    def remembered(self, package: LoadedPackage) -> Trial | None:
        """Return the layout that was found best before, in these circumstances on this machine."""
        try:
            found = json.loads(self._path(package.id).read_bytes())
            fresh = not found["disturbed"] or time.time() - found["time_s"] < _DISTURBED_S
            if fresh and found["for"] == self._circumstances(package):
                return decode(Trial, found["best"], where="layout")
        except (OSError, ValueError, KeyError, TypeError, Problem):
            pass  # there is none, or it is of no use: it is measured again
        return None

    def best(self, package: LoadedPackage, engine: Engine, samples: Samples) -> Trial | None:
        """Measure every layout, remember the best and return it.

        What something else disturbed is corrected for, and remembered for a minute only.

        Args:
            package: Verified.
            engine: With the package in it, as it was packaged.
            samples: Makes batches to measure with.

        Returns:
            None when there is nothing to choose: one core, or an engine with one way only.
        """
        if self._cores == 1 or not isinstance(engine, Spreads):
            return None
        layouts = engine.layouts(package.manifest.engine.settings, self._cores)
        kind = type(engine)
        trials = _tried(layouts, lambda settings: kind(package.model, settings), samples)
        best = chosen(trials)
        self._remember(package, best, trials)
        told = [trial.describe() for trial in trials]
        _log.info("package %s runs as %s; tried: %s", package.id[:12], best.describe(), told)
        return best

    def _remember(self, package: LoadedPackage, best: Trial, trials: Sequence[Trial]) -> None:
        told = {
            "for": self._circumstances(package),
            "time_s": time.time(),
            "disturbed": max(trial.waited for trial in trials) > _QUIET,
            "best": asdict(best),
            "tried": [asdict(trial) for trial in trials],
        }
        try:
            io.make_dirs_durable(self._folder)
            io.write_durable(self._path(package.id), canonical_json(told))
        except (OSError, Problem) as error:
            _log.warning("the layout of package %s is not remembered: %s", package.id[:12], error)

    def _path(self, package: str) -> Path:
        return self._folder / f"{package}-{fingerprint()}.json"

    def _circumstances(self, package: LoadedPackage) -> JsonObject:
        name = package.manifest.engine.name
        version = str(resolve("engine", name).version())
        return {"format": _FORMAT, "engine": name, "version": version, "cores": self._cores}


def share(workers: int = 1) -> int:
    """Return how many cores one of several server processes may count on.

    Example:
        >>> share(10_000)
        1
    """
    return max(1, probe().whole_cores // workers)


def processes(
    wanted: int, cores: int, home: Path, rate: Callable[[int, float], float] = requests_per_s
) -> tuple[int, str]:
    """Return how many processes on one port gain something, and why, in one sentence.

    Half of the cores is left to the clients, to the threads beside the event loops and to the
    system. So on less than four cores it is one: two on two cores answered no more requests, and
    the slowest took up to 1.3 s (notes of 2026-08, 64 clients on the same machine). On more, a
    trial on the loopback says whether two answer clearly more than one, then four, and so on.

    Args:
        wanted: At most so many.
        cores: That may be used.
        home: Where the answer is remembered.
        rate: Gives the requests per second of so many processes, asked for so many seconds.
    """
    most = min(wanted, cores // 2)
    if most < _SEVERAL:
        return 1, f"{cores} cores leave none to the clients of a second process"
    path = home / _FOLDER / f"processes-{most}-{fingerprint()}.json"
    with suppress(OSError, ValueError, KeyError):
        known = json.loads(path.read_bytes())
        return int(known["processes"]), str(known["reason"])
    try:
        found, rates = 1, {1: rate(1, _ASKED_S)}
        while 2 * found <= most:
            rates[2 * found] = rate(2 * found, _ASKED_S)
            if rates[2 * found] < _GAIN * rates[found]:
                break
            found *= 2
    except (OSError, ValueError, subprocess.SubprocessError, Problem) as error:
        return 1, f"the trial on the loopback failed: {error}"
    told = ", ".join(f"{count}: {per_s:.0f}" for count, per_s in rates.items())
    reason = f"requests/s by number of processes in a trial on the loopback: {told}"
    with suppress(OSError, Problem):  # it is measured again then
        io.make_dirs_durable(path.parent)
        io.write_durable(path, canonical_json({"processes": found, "reason": reason}))
    return found, reason


def chosen(trials: Sequence[Trial]) -> Trial:
    """Return the trial to go with.

    Those that give nearly the most rows per second are equals. Of these the one with the fewest
    threads is taken, since threads are memory and other packages want cores too; unless a lone
    request gains clearly by more of them.

    Example:
        >>> def trial(threads: int, rate: float, wait: float) -> Trial:
        ...     given = {"threads": threads}
        ...     return Trial(
        ...         settings=given, runners=1, rows_per_s=rate, cpu_ms=5.0, latency_ms=wait
        ...     )
        >>> chosen([trial(1, 139, 7.2), trial(2, 187, 5.4)]).threads
        2
        >>> chosen([trial(1, 186, 5.3), trial(2, 187, 5.4)]).threads
        1
    """
    enough = _ENOUGH * max(trial.quiet_rows_per_s for trial in trials)
    best, *others = sorted(
        (trial for trial in trials if trial.quiet_rows_per_s >= enough),
        key=lambda trial: (trial.threads, trial.latency_ms),
    )
    for other in others:
        if other.latency_ms < _SHORTER * best.latency_ms:
            best = other
    return best


def _tried(
    layouts: Sequence[Layout], load: Callable[[JsonObject], Engine], samples: Samples
) -> list[Trial]:
    """Try each layout; those for which there is no time are left out, never the first."""
    until = time.perf_counter() + _PROBE_S
    trials: list[Trial] = []
    for layout in layouts:
        if trials and time.perf_counter() > until:
            break
        engine = load(layout.settings)
        try:
            trials.append(_try(engine, layout, samples))
        finally:
            engine.close()
    return trials


def _try(engine: Engine, layout: Layout, samples: Samples) -> Trial:
    one, batch = samples(1), samples(_BATCH)
    engine.run(one)
    latency = stopwatch(partial(engine.run, one), _SINGLES)
    engine.run(batch)
    rounds = [_rate(engine, layout.runners, batch, _TRIAL_S / _ROUNDS) for _ in range(_ROUNDS)]
    best = max(rounds, key=lambda rate: rate.quiet_rows_per_s)
    return Trial(
        settings=dict(layout.settings),
        runners=layout.runners,
        rows_per_s=best.rows / best.seconds,
        cpu_ms=1000 * best.cpu_s / best.rows,
        latency_ms=1000 * latency,
        waited=best.waited,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rate:
    """What one round gave."""

    rows: int
    seconds: float
    cpu_s: float
    waited: float  # share of the time that threads wanted to run and did not

    @property
    def quiet_rows_per_s(self) -> float:
        return _undisturbed(self.rows / self.seconds, self.waited)


def _undisturbed(rows_per_s: float, waited: float) -> float:
    """Return what the rate would have been, had nothing else wanted the cores."""
    return rows_per_s / max(1.0 - waited, _LEAST_SHARE)


def _rate(engine: Engine, runners: int, batch: Mapping[str, Array], seconds: float) -> _Rate:
    """Run batches on several threads."""
    done = [0] * runners
    waits = [0.0] * runners  # of threads that have ended nobody else can tell
    waited, cpu, started = _waited_s(), time.process_time(), time.perf_counter()
    until = started + seconds

    def work(place: int) -> None:
        while not done[place] or time.perf_counter() < until:
            engine.run(batch)
            done[place] += _BATCH
        waits[place] = _waited_s(Path("/proc/thread-self"))

    with ThreadPoolExecutor(runners, thread_name_prefix="genba-probe") as callers:
        for finished in [callers.submit(work, place) for place in range(runners)]:
            finished.result()
        lasted, used = time.perf_counter() - started, time.process_time() - cpu
        waited = max(_waited_s() - waited, sum(waits))
    return _Rate(
        rows=sum(done), seconds=lasted, cpu_s=used, waited=waited / max(waited + used, 1e-9)
    )


def _waited_s(*threads: Path) -> float:
    """Return the seconds that threads, or all of this process, have waited for a core so far.

    Linux counts them in nanoseconds (Documentation/scheduler/sched-stats.rst); elsewhere it is 0.
    """
    try:
        found = threads or Path("/proc/self/task").iterdir()
        return sum(int((path / "schedstat").read_text().split()[1]) for path in found) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
