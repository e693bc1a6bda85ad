"""Remaining lives of generated bearings: Genba against plain scikit-learn on the same split."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.machine import stamp
from benchmarks.remaining_life.fleet import bearings
from genba.core.codec import encode
from genba.core.protocols import Array, Tensors, View
from genba.learn.threads import one_thread
from genba.runs.effort import Effort
from genba.tasks.sensor.remaining_life import SensorRemainingLife
from genba.tasks.sensor.remaining_life.baselines import alarm_point, known_rows
from genba.tasks.sensor.remaining_life.lives import Lives

HERE: Final = Path(__file__).parent
FLEETS: Final = (0, 1, 2)  # seeds: other bearings to learn from each
JUDGED: Final = 300  # bearings of yet another fleet: with 24, one missed failure decides
SHOWN: Final = (
    *("rmse", "rmse_raw", "mae", "phm08_rows", "coverage", "coverage_below_cap", "width"),
    *("cost_per_unit", "missed_failures", "lost_life"),
)
Floats = npt.NDArray[np.float64]


class Peer:
    """A scikit-learn regressor on the newest readings, with the alarm point chosen as Genba's."""

    def __init__(self, regressor: Any, view: View, settings: Mapping[str, Any]) -> None:
        self.alarm_at, self.regressor = 0.0, regressor
        lives = Lives.of(view, settings)
        parts = [(s.tensors, t) for s, t in known_rows(view, "train", settings, lives)]
        x = np.concatenate([np.asarray(p["window"])[:, -1] for p, _ in parts]).astype(np.float64)
        target = np.concatenate([t for _, t in parts])
        self.usual = np.nanmedian(x, axis=0)
        self.top = float(target.max())
        self.regressor.fit(self.filled(x), target)
        self.alarm_at = alarm_point(self, view, settings, lives)

    def filled(self, x: Floats) -> Floats:
        """Replace what is missing by the median."""
        return np.where(np.isfinite(x), x, self.usual)

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Predict as a package would, without an interval."""
        x = np.asarray(tensors["window"], dtype=np.float64)[:, -1]
        expected = np.clip(self.regressor.predict(self.filled(x)), 0.0, self.top)
        return {
            "expected": expected,
            "low": expected,
            "high": expected,
            "score": self.alarm_at / np.maximum(expected, 0.1),
            "alarm": expected < self.alarm_at,
        }


PEERS: Final[Mapping[str, Callable[[], Any]]] = {
    "ridge, newest readings": lambda: make_pipeline(
        StandardScaler(), RidgeCV(alphas=np.logspace(-3, 3, 13))
    ),
    "random forest, newest readings": lambda: RandomForestRegressor(
        n_estimators=200, min_samples_leaf=5, random_state=0
    ),
    "HistGradientBoosting, newest readings": lambda: HistGradientBoostingRegressor(random_state=0),
}


def one_fleet(seed: int) -> dict[str, Any]:
    """Learn from one fleet and measure everything on another."""
    view = bearings(seed, JUDGED)
    task = SensorRemainingLife()
    settings = task.derive(view.line, view)
    found: dict[str, Any] = {}
    with one_thread():
        begin = time.process_time()
        model = task.fit(view, settings, Effort.simple(seed=0, minutes=10, trials=12))
        spent = time.process_time() - begin
        scores = task.score(task.reference(model), view, "test", model.settings)
        found["genba"] = kept(scores.measures, SHOWN) | {
            "candidate": model.candidate,
            "cpu_seconds": spent,
        }
        for name, made in task.baselines(view, model.settings).items():
            found[name] = kept(made.measures, SHOWN)
        for name, make in PEERS.items():
            begin = time.process_time()
            peer = Peer(make(), view, model.settings)
            spent = time.process_time() - begin
            made = task.score(peer, view, "test", model.settings)
            names = [n for n in SHOWN if n not in ("coverage", "coverage_below_cap", "width")]
            found[name] = kept(made.measures, names) | {"cpu_seconds": spent}
    return {"judged_units": JUDGED, "judged_rows": view.count("test"), "methods": found}


def kept(measures: Mapping[str, Any], names: Any) -> dict[str, Any]:
    """Return some measures as JSON."""
    return {name: encode(measures[name]) for name in names if name in measures}


def main() -> None:
    """Measure every fleet and write the report; fail where a peer errs less than Genba."""
    report: dict[str, Any] = {"generated": True, "fleets": {}}
    for seed in FLEETS:
        found = report["fleets"][str(seed)] = one_fleet(seed)
        for name, method in found["methods"].items():
            told = (f"{n} {method[n]['value']:.4g}" for n in SHOWN if n in method)
            print(f"{seed}  {name:40} {'; '.join(told)}", flush=True)
    (HERE / "report.json").write_text(
        json.dumps({**stamp(), **report}, indent=2) + "\n", encoding="utf-8"
    )
    for seed, found in report["fleets"].items():
        ours = found["methods"]["genba"]["rmse"]["value"]
        for name in PEERS:
            if found["methods"][name]["rmse"]["value"] < ours:
                raise SystemExit(f"{name} errs less than Genba on fleet {seed}")


if __name__ == "__main__":
    main()
