"""What a sample is: a window of rows up to now, and the settings that a line leaves open."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.codec import nearest
from genba.core.line import Limit, Line
from genba.core.problem import Problem
from genba.core.protocols import Columns, JsonObject, Tensors, View
from genba.core.task import Recovered, Samples
from genba.core.values import Signature, Tensor
from genba.learn import absent

REGRESSION: Final = ("ridge", "boosting")
SENSORS: Final = ("components", "ridge", "boosting")

#: Rows in a window where there is a clock. It does not depend on the data, because whoever asks
#: for predictions builds these windows: every version of a line must take the same shape.
_LAGS_WITH_CLOCK: Final = 3
#: The threshold is set for a fraction of what the gate allows: the future differs from the
#: calibration rows, and on the wind farm by up to a factor of four from month to month.
_SHARE_OF_GATE: Final = 0.25
_DEFAULT_PER_DAY: Final = 0.25
_DEFAULT_RATE: Final = 0.005
_LARGEST: Final = 1e12  # of a reading without a check; its square still fits into float32
_EPISODE_STEPS: Final = 6  # alarms at most so many steps apart are one episode

#: What people need to say; `label` knows other words for them.
WORDS: Final = ("anomaly", "normal")
_ANOMALY: Final = frozenset(
    {"anomaly", "fault", "true", "alarm", "yes", "1", "bad", "defect", "stop"}
)
_NORMAL: Final = frozenset({"normal", "ok", "false", "no", "0", "good", "healthy", "false alarm"})


def derive(line: Line, view: View) -> dict[str, Any]:
    """Derive every setting the line leaves open, as JSON that is printed and recorded."""
    data = line.data
    lags = _LAGS_WITH_CLOCK if view.has_clock else 1
    step = _step_ms(view) if view.has_clock else None
    checks = [data.checks.get(name) for name in view.sensors]
    return {
        "mode": "regression" if data.output else "sensors",
        "sensors": list(view.sensors),
        "outputs": [data.output] if data.output else list(view.sensors),
        "lags": lags,
        "context": lags - 1,
        "has_clock": view.has_clock,
        "step_ms": step,
        "merge": _EPISODE_STEPS * (step or 1) if view.has_clock else 1,
        "low": [check.min if check else None for check in checks],
        "high": [check.max if check else None for check in checks],
        "alarm_budget": alarm_budget(line, has_clock=view.has_clock),
        "candidates": _candidates(line),
        **absent.sources(line),
    }


def absences(settings: JsonObject) -> dict[str, tuple[str, ...]]:
    """Return what may be missing and is answered without: with an output, inputs only.

    The only input of a regression cannot be done without.
    """
    regression = settings["mode"] == "regression"
    inputs = [s for s in settings["sensors"] if not regression or s not in settings["outputs"]]
    return absent.absences(inputs, settings)


def suggest(line: Line) -> Line:
    """Add gates that a useful model passes, by what the line has: an output, a label, a clock."""
    gates: dict[str, Limit] = {}
    if line.data.output:
        gates["r2"] = Limit(min=0.8)
    if line.data.label:
        gates["f1"] = Limit(min=0.5)
    name, most = ("false_alarms_per_day", 2.0) if line.data.time else ("false_alarm_rate", 0.01)
    gates[name] = Limit(max=most)
    return replace(line, gates={**gates, **line.gates})


def alarm_budget(line: Line, *, has_clock: bool) -> dict[str, Any]:
    """Derive the false-alarm budget of one entity from the gates.

    Example:
        >>> from genba.core.line import Data, Limit, Line
        >>> line = Line(name="a", task="sensor.anomaly", data=Data(source="files:a.csv"),
        ...             gates={"false_alarms_per_day": Limit(max=1)})
        >>> alarm_budget(line, has_clock=True)["value"]
        0.25
    """
    name = "false_alarms_per_day" if has_clock else "false_alarm_rate"
    default = _DEFAULT_PER_DAY if has_clock else _DEFAULT_RATE
    gate = line.gates.get(name)
    share = _SHARE_OF_GATE if has_clock else 2 * _SHARE_OF_GATE  # rows drift less than days
    stated = gate is not None and gate.max is not None
    value = share * gate.max if gate is not None and gate.max is not None else default
    return {
        "unit": "episodes per entity and day" if has_clock else "share of rows",
        "value": value,
        "because": f"{share:g} of the gate {name}" if stated else "the default",
    }


def signature(settings: JsonObject) -> Signature:
    """Return the inputs and outputs of a package with these settings."""
    window = (-1, int(settings["lags"]), len(settings["sensors"]))
    return Signature(
        inputs=(
            Tensor(name="window", datatype="FP32", shape=window, role="feature"),
            Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
        ),
        outputs=(
            Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),
            Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm"),
            Tensor(
                name="expected",
                datatype="FP32",
                shape=(-1, len(settings["outputs"])),
                role="expected",
            ),
        ),
    )


def samples(columns: Columns, settings: JsonObject) -> Samples:
    """Turn consecutive rows of one entity into samples.

    The window of a row holds the rows whose time is 0, 1, ... steps before it, the oldest first;
    where such a row does not exist (a gap, the beginning), its readings are missing (NaN).
    """
    readings = np.stack([np.asarray(columns[s], dtype=np.float32) for s in settings["sensors"]], 1)
    time = np.asarray(columns["time"], dtype=np.int64)
    lags = int(settings["lags"])
    window = np.full((len(time), lags, readings.shape[1]), np.nan, dtype=np.float32)
    window[:, -1] = readings
    for back in range(1, lags):
        at, found = _rows_before(time, back * int(settings["step_ms"]), int(settings["step_ms"]))
        window[found, lags - 1 - back] = readings[at[found]]
    outputs = [list(settings["sensors"]).index(name) for name in settings["outputs"]]
    entity = np.asarray(columns["entity"])
    return Samples(
        tensors={"window": window, "entity": entity.astype(np.int64)},
        entity=entity.astype(np.int32),
        time=time,
        row=np.asarray(columns["row"], dtype=np.int64),
        label=np.asarray(columns["label"], dtype=np.float64),
        truth=readings[:, outputs].astype(np.float64),
    )


def rows(tensors: Tensors, settings: JsonObject) -> Recovered:
    """Find the rows of data again in windows.

    The last row of a window is the prediction's own. One before it that has no reading at all is
    no row: there was a gap, or whoever asked did not send it.
    """
    window = np.asarray(tensors["window"], dtype=np.float64)
    count, lags, _ = window.shape
    back = np.tile(np.arange(lags - 1, -1, -1), count)
    flat = window.reshape(count * lags, -1)
    found = (back == 0) | np.isfinite(flat).any(axis=1)
    return Recovered(
        columns={name: flat[found, i] for i, name in enumerate(settings["sensors"])},
        of=np.repeat(np.arange(count), lags)[found],
        steps_back=back[found],
    )


def read(view: View, split: str, settings: JsonObject) -> Iterator[Samples]:
    """Yield the samples of a split chunk by chunk, with the rows that precede a chunk in memory."""
    keep = int(settings["lags"]) - 1
    tails: dict[int, dict[str, npt.NDArray[Any]]] = {}
    names = ("entity", "time", "row", "label", *settings["sensors"])
    for chunk in view.chunks(split):
        here = {name: np.asarray(chunk[name]) for name in names}
        if not len(here["time"]):
            continue
        owner = int(here["entity"][0])
        known = len(tails[owner]["time"]) if owner in tails else 0
        if known:
            here = {n: np.concatenate([tails[owner][n], here[n]]) for n in names}
        yield part(samples(here, settings), slice(known, None))
        if keep:
            tails[owner] = {n: c[-keep:] for n, c in here.items()}


def part(whole: Samples, rows: slice | npt.NDArray[Any]) -> Samples:
    """Return some of the samples."""
    return Samples(
        tensors={name: tensor[rows] for name, tensor in whole.tensors.items()},
        **{n: getattr(whole, n)[rows] for n in ("entity", "time", "row", "label", "truth")},
    )


def gather(parts: Sequence[Samples]) -> Samples:
    """Return samples as one."""
    fields = ("entity", "time", "row", "label", "truth")
    return Samples(
        tensors={
            name: np.concatenate([p.tensors[name] for p in parts]) for name in parts[0].tensors
        },
        **{n: np.concatenate([getattr(p, n) for p in parts]) for n in fields},
    )


def limits(settings: JsonObject) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the lowest and highest plausible reading of each sensor; beyond them it is missing."""
    low = [-_LARGEST if v is None else v for v in settings["low"]]
    high = [_LARGEST if v is None else v for v in settings["high"]]
    return np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)


def label(correction: str) -> float:
    """Turn what a person said into the label of a sample.

    Raises:
        Problem: G801 when the word is not known.

    Example:
        >>> label("Fault"), label("ok")
        (1.0, 0.0)
    """
    word = correction.strip().lower().replace("_", " ")
    if word in _ANOMALY:
        return 1.0
    if word in _NORMAL:
        return 0.0
    near = nearest(word, WORDS)
    raise Problem(
        "G801",
        f"{correction!r} says neither anomaly nor normal"
        + (f"; did you mean {near}?" if near else "."),
        why=f"Anomaly: {', '.join(sorted(_ANOMALY))}. Normal: {', '.join(sorted(_NORMAL))}.",
        tries=list(WORDS),
    )


def _rows_before(
    time: npt.NDArray[np.int64], distance: int, step: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    wanted = time - distance
    at = np.searchsorted(time, wanted - step // 2)
    at = np.minimum(at, len(time) - 1)
    return at, np.abs(time[at] - wanted) <= step // 2


def _step_ms(view: View) -> int:
    for chunk in view.chunks("train"):
        gaps = np.diff(np.asarray(chunk["time"], dtype=np.int64))
        gaps = gaps[gaps > 0]
        if len(gaps):
            return int(np.median(gaps))
    return 1


def _candidates(line: Line) -> list[str]:
    known = REGRESSION if line.data.output else SENSORS
    for name in line.train.candidates:
        if name not in known:
            near = nearest(name, known)
            raise Problem(
                "G105",
                f"There is no candidate {name!r}" + (f"; did you mean {near}?" if near else "."),
                where="train.candidates",
                why=f"With{'' if line.data.output else 'out'} an output: {', '.join(known)}.",
                tries=[f'candidates = ["{near or known[0]}"]'],
            )
    return list(line.train.candidates or known)
