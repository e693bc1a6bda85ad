"""The modelled fidelity: what a choice would cost on a device, and how sure that is.

A roofline from the device's profile (`modelled_terms`), corrected by what was measured on that
device (`modelled_fit`). How far such numbers are off is found by back-testing: each model is
predicted from the measurements of all others. The interval is that of conformal prediction
(Papadopoulos et al., "Inductive confidence machines for regression", ECML 2002) on the errors of
the back-test; where nothing was measured there is nothing to back-test, and what is given is the
band of the rates themselves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from genba.codesign.modelled_fit import Corrections, Row, fit, uncorrected
from genba.codesign.modelled_terms import Metric, Usage, terms
from genba.codesign.operations import Operations
from genba.core.values import Measure
from genba.targets.profile import Profile

METRICS: Final[tuple[Metric, ...]] = ("cpu_ms", "latency_ms_p50")
#: Asked of the intervals; a little more than what is promised, 85 %, since points are few.
LEVEL: Final = 0.9
_FEWEST_MODELS: Final = 2
_BY_THE_CLOCK: Final = "latency_ms_p50"
BUSY: Final = 1.5  # processes for each core; with more, wall time says little about the device
_SMALL: Final = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One measured point: which graph, how it was used, what it took."""

    model: str  # whatever its form: the forms and batches of one model are alike
    work: Operations = field(repr=False)
    usage: Usage
    cpu_ms: float  # per row
    latency_ms_p50: float  # of a call
    load: float = 0.0
    time_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BackTest:
    """How far modelled numbers of a target are off, as found by predicting what was measured."""

    median_error: float  # relative: 0.2 is a fifth too much or too little
    coverage: float  # share of measured points inside their interval
    points: int
    models: int
    left_out: int = 0  # points with work of a kind that no other model has: nothing was said

    def __str__(self) -> str:
        """Return it in a sentence's worth of words."""
        return (
            f"median error {self.median_error:.0%}, {self.coverage:.0%} of {self.points} points "
            f"of {self.models} models inside their interval"
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """Corrections for one target and metric, and what the back-test says of them."""

    corrections: Corrections
    tested: BackTest | None = None
    spread: float | None = None  # of the interval, in natural logarithms


class Model:
    """The model of cost of one target.

    Args:
        profile: Of the target.
        points: What was measured on it; () gives the roofline as it is.
        tested: Another model of the target with most of these points, whose back-test will do.
    """

    def __init__(
        self, profile: Profile, points: Sequence[Seen] = (), tested: "Model | None" = None
    ) -> None:
        self.profile = profile
        rates = profile.rates
        self._fastest = replace(profile, rates=tuple(replace(r, value=r.high) for r in rates))
        self._slowest = replace(profile, rates=tuple(replace(r, value=r.low) for r in rates))
        self._fitted: dict[Metric, Fitted] = {
            metric: _fitted(profile, points, metric, tested._fitted[metric] if tested else None)
            for metric in METRICS
        }

    def back_test(self, metric: Metric = "latency_ms_p50") -> BackTest | None:
        """Return how good it is; None where fewer than two models were measured."""
        return self._fitted[metric].tested

    def predict(self, work: Operations, usage: Usage, model: str = "") -> dict[str, Measure]:
        """Return `cpu_ms` and `latency_ms_p50`, modelled; {} where a rate is not known.

        Args:
            work: Operators of the graph in the form that is used.
            usage: How it is used.
            model: Name of the model, as in the points: what was measured of it moves the rest.
        """
        found: dict[str, Measure] = {}
        for metric, fitted in self._fitted.items():
            parts = terms(self.profile, work, usage, metric)
            if parts is None or not parts.any() or not fitted.corrections.covers(parts):
                return {}
            value = fitted.corrections.of(parts, usage.family, model)
            band = self._of_rates(work, usage, metric) if fitted.spread is None else None
            found[metric] = _measure(value, fitted.spread, band)
        return found

    def _of_rates(
        self, work: Operations, usage: Usage, metric: Metric
    ) -> tuple[float, float] | None:
        """Return the least and the most by the band of the rates, which is all that is known."""
        ends = []
        for profile in (self._fastest, self._slowest):
            parts = terms(profile, work, usage, metric)
            if parts is None:
                return None
            ends.append(self._fitted[metric].corrections.of(parts, usage.family))
        return min(ends), max(ends)


def predict(
    profile: Profile, work: Operations, usage: Usage, points: Sequence[Seen] = ()
) -> dict[str, Measure]:
    """Return what one use of a graph would cost; for many, make a `Model` once.

    Args:
        profile: Of the target.
        work: Operators of the graph in the form that is used.
        usage: How it is used.
        points: What was measured on the target.
    """
    return Model(profile, points).predict(work, usage)


def back_test(
    profile: Profile, points: Sequence[Seen], metric: Metric = "latency_ms_p50"
) -> BackTest | None:
    """Predict each model from the measurements of all others, and say how far off that was.

    The interval of a model rests on the errors of the others only, so that its coverage is that
    of a model nobody has measured yet.

    Args:
        profile: Of the target.
        points: Measured there, of two models at least.
        metric: Which number.

    Returns:
        None where fewer than two models were measured.
    """
    return _tested(_held_out(_rows(profile, points, metric)))


def _fitted(
    profile: Profile, points: Sequence[Seen], metric: Metric, known: Fitted | None
) -> Fitted:
    rows = _rows(profile, points, metric)
    if not rows:
        return Fitted(uncorrected())
    if known is not None and known.spread is not None:
        return replace(known, corrections=fit(rows))
    errors = _held_out(rows)
    return Fitted(fit(rows), _tested(errors), _spread(list(errors.values())))


def _rows(profile: Profile, points: Sequence[Seen], metric: Metric) -> list[Row]:
    found = []
    for point in points:
        parts = terms(profile, point.work, point.usage, metric)
        measured = getattr(point, metric)
        if metric == _BY_THE_CLOCK and point.load > BUSY * profile.cores:
            continue
        if parts is not None and parts.any() and measured > 0:
            row = Row(family=point.usage.family, model=point.model, terms=parts, measured=measured)
            found.append(row)
    return found


def _held_out(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """Return the errors of each model, expected from the rows of all others, by model.

    In natural logarithms; None of a row of which nothing is said. {} where there is one model only.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    if len(models) < _FEWEST_MODELS:
        return {}
    found = {}
    for held in models:
        corrections = fit([row for row in rows if row.model != held])
        found[held] = [_error(corrections, row) for row in rows if row.model == held]
    return found


def _error(corrections: Corrections, row: Row) -> float | None:
    if not corrections.covers(row.terms):
        return None
    return abs(math.log(row.measured / corrections.of(row.terms, row.family)))


def _tested(errors: Mapping[str, Sequence[float | None]]) -> BackTest | None:
    """Judge the errors of each model by an interval that rests on those of the others.

    Cross-conformal prediction (Vovk, Annals of Mathematics and Artificial Intelligence 74, 2015).
    """
    off: list[float] = []
    inside: list[bool] = []
    for held, found in errors.items():
        spread = _spread([those for model, those in errors.items() if model != held])
        known = [e for e in found if e is not None]
        off += known
        inside += [spread is not None and error <= spread for error in known]
    if not off:
        return None
    return BackTest(
        median_error=float(np.expm1(np.median(off))),
        coverage=float(np.mean(inside)),
        points=len(off),
        models=len(errors),
        left_out=sum(error is None for found in errors.values() for error in found),
    )


def _spread(errors: Sequence[Sequence[float | None]]) -> float | None:
    """Return the error that a new model's points stay below as often as is asked for.

    Models are what is drawn anew, so each counts as much as any other, however many points it has,
    and one more, about which nothing is known, counts as wrong (Lee, Barber and Willett,
    "Distribution-free inference with hierarchical data", 2023). Of few models the largest error
    must do. None where there is no error at all.

    Example:
        >>> round(_spread([[0.1, 0.1]] * 18 + [[0.5, None]]), 3)
        0.1
    """
    known = [[e for e in found if e is not None] for found in errors]
    weighted = sorted((e, 1.0 / len(found)) for found in known for e in found)
    if not weighted:
        return None
    wanted = LEVEL * (1 + sum(bool(found) for found in known))
    reached = np.cumsum([weight for _, weight in weighted])
    place = int(np.searchsorted(reached, wanted - _SMALL))
    return weighted[min(place, len(weighted) - 1)][0]


def _measure(value: float, spread: float | None, band: tuple[float, float] | None) -> Measure:
    if spread is not None:
        band = value / math.exp(spread), value * math.exp(spread)
    low, high = band or (None, None)
    return Measure(value=value, unit="ms", low=low, high=high, method="modelled")


def usage_of(engine: str, settings: Mapping[str, object], form: str = "", batch: int = 1) -> Usage:
    """Return how an engine with these settings uses a graph.

    Example:
        >>> usage_of("openvino", {"precision": "float32", "threads": 2}).threads
        2
    """
    return Usage(
        engine=engine,
        precision=str(settings.get("precision") or "float32"),
        form=form,
        threads=int(str(settings.get("threads") or 1)),
        callers=int(str(settings.get("streams") or 1)),
        batch=batch,
    )
