"""What to expect of trials before they are measured, and what measuring them adds to that.

The link between a search and the model of cost: a search asks once for all of its trials, and when
it is over, what it measured is kept in the home, for the next search on the same target.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from genba.codesign.modelled import METRICS, BackTest, Model, Seen, usage_of
from genba.codesign.modelled_points import read, remember
from genba.codesign.modelled_terms import Usage
from genba.codesign.operations import Operations, in_integers, operations
from genba.codesign.values import AS_EXPORTED, Trial
from genba.core.digest import digest_bytes
from genba.core.problem import Problem
from genba.core.values import Measure
from genba.targets.profile import Profile

_INTEGERS: Final = "int8"
_MS_PER_S: Final = 1e3
_THOUSAND: Final = 1_000


class Expectations:
    """Expects what trials cost on one target.

    Args:
        home: Where what was measured before is kept; None keeps nothing.
        profile: Of the target.
        graphs: The graph as exported, by variant; what is no ONNX graph is expected nothing of.
        before: What was measured on the target before; what the home has where None.
    """

    def __init__(
        self,
        home: Path | None,
        profile: Profile,
        graphs: Mapping[str, bytes],
        before: Sequence[Seen] | None = None,
    ) -> None:
        self._home, self._profile = home, profile
        kept = read(home, profile.name) if home is not None else []
        self._before = kept if before is None else list(before)
        self._learnt = 0  # points of this search that the model knows
        self._spoke = False  # whether something was expected of a trial
        self._model = self._first = Model(profile, self._before)
        self._names = {name: digest_bytes(graph)[:16] for name, graph in graphs.items()}
        self._works = {name: _work(graph) for name, graph in graphs.items()}

    def fill(self, trials: Sequence[Trial]) -> int:
        """Set `expected` of every trial that was not refused; return of how many something is.

        May be called again as the search goes on: where nothing could be said before, what was
        measured of these trials speaks. Where something was, it stays: a search learns by which
        factor it was wrong, and on measured grids that found better points than fitting anew.
        """
        here = self._points(trials)
        if len(here) != self._learnt and not self._spoke:
            self._learnt = len(here)
            self._model = Model(self._profile, [*self._before, *here], tested=self._first)
        count = 0
        for trial in trials:
            found = {} if trial.refused else self._expected(trial)
            if found:
                trial.expected = found
                count += 1
        self._spoke = self._spoke or count > 0
        return count

    def keep(self, trials: Sequence[Trial]) -> None:
        """Keep what was measured.

        Raises:
            Problem: G303 or G304 when the disk is full or may not be written to.
        """
        points = self._points(trials)
        if self._home is not None and points:
            remember(self._home, self._profile.name, points)

    @property
    def tested(self) -> BackTest | None:
        """How good expectations of latency are on this target; None where nothing is known."""
        return self._model.back_test("latency_ms_p50")

    def _expected(self, trial: Trial) -> dict[str, Measure]:
        work = self._of_form(trial)
        if work is None:
            return {}
        usage = _usage(trial)
        found = self._model.predict(work, usage, self._names[trial.point.variant])
        if not found:
            return {}
        per_call = found["latency_ms_p50"]
        rows = usage.batch * usage.callers * _MS_PER_S
        rate = Measure(
            value=rows / per_call.value,
            unit="rows/s",
            low=rows / per_call.high if per_call.high else None,
            high=rows / per_call.low if per_call.low else None,
            method="modelled",
        )
        return {**found, "rows_per_s": rate}

    def _points(self, trials: Sequence[Trial]) -> list[Seen]:
        return [point for point in map(self._seen, trials) if point is not None]

    def _of_form(self, trial: Trial) -> Operations | None:
        work = self._works.get(trial.point.variant)
        if work is None or trial.point.form == AS_EXPORTED:
            return work
        return in_integers(work) if trial.point.form.startswith(_INTEGERS) else None

    def _seen(self, trial: Trial) -> Seen | None:
        work = self._of_form(trial)
        if work is None or any(name not in trial.measures for name in METRICS):
            return None
        load = trial.measures.get("load")
        return Seen(
            model=self._names[trial.point.variant],
            work=work,
            usage=_usage(trial),
            cpu_ms=trial.measures["cpu_ms"].value,
            latency_ms_p50=trial.measures["latency_ms_p50"].value,
            load=load.value if load else 0.0,
            time_ms=int(time.time() * _THOUSAND),
        )


def _usage(trial: Trial) -> Usage:
    point = trial.point
    return usage_of(point.engine, point.settings, point.form, point.batch)


def _work(graph: bytes) -> Operations | None:
    try:
        work = operations(graph)
    except Problem:
        return None
    return work if work.rows else None
