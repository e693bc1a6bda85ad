"""What forecasts cost, and how good they are against statsforecast, in one run."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import stamp
from genba.core.line import Budget, Data, Line, Train
from genba.core.protocols import Array, View
from genba.learn.rows import RowsView
from genba.runs.effort import Effort
from genba.store.home import Store
from genba.tasks.sensor.forecast import SensorForecast, naive, series
from genba.testing.generated import ingest_line

HERE = Path(__file__).parent
HOUR_MS = 3_600_000
ROWS, COLUMNS = 17_420, 7
HORIZONS = [96, 192, 336, 720]
AHEAD, APART, HISTORY = 48, 145, 8 * 336


def transformer_like() -> RowsView:
    """Return generated hourly values of seven columns, split as the ETT benchmarks are."""
    chance = np.random.default_rng(0)
    hours = np.arange(ROWS)
    columns: dict[str, Array] = {}
    for place in range(COLUMNS):
        slow = np.cumsum(chance.normal(0, 0.05, ROWS))
        day = chance.normal(1, 0.3) * np.sin(2 * np.pi * (hours / 24 + chance.random()))
        half = 0.4 * np.sin(4 * np.pi * (hours / 24 + chance.random()))
        noise = np.convolve(chance.normal(0, 0.25, ROWS + 63), 0.9 ** np.arange(64), "valid")
        columns[f"c{place}"] = slow + day + half + noise
    month = 30 * 24
    names = np.array(["train", "calibrate", "test", "purged"])
    split = names[np.searchsorted([12 * month, 16 * month, 20 * month], hours, side="right")]
    rows = {
        "entity": np.zeros(ROWS, dtype=np.int64),
        "time": 1_467_331_200_000 + hours * HOUR_MS,
        "label": np.full(ROWS, np.nan),
        "split": split,
    }
    line = Line(
        name="transformer-like",
        task="sensor.forecast",
        data=Data(source="generated:", time="time", inputs=tuple(columns)),
        options={"horizon": HORIZONS[-1], "report": HORIZONS, "window": 512},
        train=Train(candidates=("ridge",)),
    )
    return RowsView(line, {**rows, **columns})


def speed() -> dict[str, Any]:
    """Search, train, calibrate and score four horizons of seven columns."""
    task, view = SensorForecast(), transformer_like()
    started = time.process_time()
    settings = task.derive(view.line, view)
    model = task.fit(view, settings, Effort.simple(minutes=10, trials=12))
    trained = time.process_time()
    measures = task.score(task.reference(model), view, "test", model.settings).measures
    return {
        "cpu_seconds_fit": trained - started,
        "cpu_seconds_score": time.process_time() - trained,
        "measures": {name: str(value) for name, value in measures.items()},
    }


def load_line(*, covariates: bool) -> Line:
    """Return the line of `lines/load.toml`, with or without what is known in advance."""
    names = ("WorkDay", "Temperature") if covariates else ()
    return Line(
        name="load",
        task="sensor.forecast",
        data=Data(
            source="package:elecdemand", time="time", output="Demand", inputs=names, known=names
        )
        if covariates
        else Data(source="package:elecdemand", time="time", inputs=("Demand",)),
        options={"horizon": AHEAD, "timezone": "Australia/Melbourne"},
        train=Train(budget=Budget(minutes=10, trials=8)),
    )


def ours(view: View) -> tuple[Array, Array, Any, dict[str, Any]]:
    """Return forecasts from the origins, the origins, the series and what it cost."""
    task, started = SensorForecast(), time.process_time()
    settings = task.derive(view.line, view)
    model = task.fit(view, settings, Effort.simple(minutes=10, trials=8))
    spent = time.process_time() - started
    (one,) = series.read(view, model.settings)
    at = series.origins(one, model.settings, "test")[::APART]
    inputs = {**series.tensors(one, at, model.settings), "width": np.ones(len(at), np.float32)}
    made = task.reference(model)(inputs)["expected"][:, :, 0]
    cost = {"cpu_seconds": spent, "candidate": model.candidate}
    return made, at, (one, model.settings, inputs), cost


def quality() -> dict[str, Any]:
    """Forecast from the same origins with every method and return their errors."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "home") as store:
        view = ingest_line(load_line(covariates=True), store)
        made, at, (one, settings, inputs), cost = ours(view)
        truth = series.truth(one, at, settings)[:, :, 0].astype(np.float64)
        found["genba"] = {**cost, **errors(made, truth)}
        bare, again, _, cost = ours(ingest_line(load_line(covariates=False), store))
        assert np.array_equal(again, at)
        found["genba, without temperature and working days"] = {**cost, **errors(bare, truth)}
        for season, name in ((48, "yesterday repeated"), (336, "last week repeated")):
            repeat = naive.Repeat(settings, season)(inputs)["expected"][:, :, 0]
            found[name] = errors(repeat, truth)
        values = one.values[:, list(settings["sensors"]).index("Demand")].astype(np.float64)
    for name, rival in peers(values, at).items():
        made = np.array(rival["forecasts"])
        found[name] = {"cpu_seconds": rival["cpu_seconds"], **errors(made, truth)}
    return {"origins": len(at), "methods": found}


def errors(made: Array, truth: Array) -> dict[str, float]:
    """Return the mean absolute and the root mean square error, in GW."""
    away = made - truth
    return {"mae_gw": float(np.abs(away).mean()), "rmse_gw": float(np.sqrt((away**2).mean()))}


def peers(values: Array, at: Array) -> dict[str, Any]:
    """Run statsforecast in the Python that PEERS_PYTHON names; nothing where it names none."""
    python = os.environ.get("PEERS_PYTHON")
    if not python:
        return {}
    given = {
        "values": values.tolist(),
        "origins": at.tolist(),
        "history": HISTORY,
        "ahead": AHEAD,
    }
    done = subprocess.run(
        [python, str(HERE / "peers" / "statsforecast_peer.py")],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    report = {**stamp(), "speed": speed(), "quality": quality()}
    fast = report["speed"]["cpu_seconds_fit"] + report["speed"]["cpu_seconds_score"]
    print(f"ridge, {ROWS:,} x {COLUMNS}, four horizons: {fast:.1f} CPU s (claim: under 60)")
    for name, found in report["quality"]["methods"].items():
        cpu = f"{found['cpu_seconds']:8.1f} CPU s" if "cpu_seconds" in found else ""
        print(f"{name:45} MAE {found['mae_gw']:.4f} GW  RMSE {found['rmse_gw']:.4f} GW {cpu}")
    (HERE / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
