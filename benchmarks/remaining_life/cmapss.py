"""Judge Genba on a set in the layout of C-MAPSS, as papers do: at the last cycle of each test unit.

`python -m benchmarks.remaining_life.cmapss FOLDER FD001`

FOLDER holds `train_FD001.txt`, `test_FD001.txt` and `RUL_FD001.txt`. No package brings these files,
so nothing here was measured by Genba's authors; it is for whoever has them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.remaining_life.fleet import table, view_of
from genba.core.line import Data, Line, Split
from genba.data.splits import deal_entities
from genba.learn.threads import one_thread
from genba.runs.effort import Effort
from genba.tasks.sensor.remaining_life import SensorRemainingLife, schema
from genba.tasks.sensor.remaining_life.score import phm08


def judge(folder: Path, name: str, cap: int = 125) -> dict[str, float]:
    """Train on every training unit but those that calibrate, and judge at the test units' ends."""
    train = table(folder / f"train_{name}.txt", "train-")
    test = table(folder / f"test_{name}.txt", "test-")
    left = np.loadtxt(folder / f"RUL_{name}.txt").ravel()
    inputs = tuple(c for c in train.columns if c.startswith("column_"))[2:]
    inputs = tuple(sorted(inputs, key=lambda c: int(c.removeprefix("column_"))))
    data = Data(source="", entity="column_1", time="column_2", inputs=inputs)
    line = Line(name="cmapss", task="sensor.remaining_life", data=data, options={"cap": cap})
    dealt = deal_entities(sorted(train["column_1"].unique()), Split(test=0.01), 0)
    split = {unit: "train" if place == "test" else place for unit, place in dealt.items()}
    split |= dict.fromkeys(test["column_1"].unique(), "test")
    view = view_of(line, pl.concat([train, test]), split)
    task = SensorRemainingLife()
    settings = task.derive(line, view)
    with one_thread():
        model = task.fit(view, settings, Effort.simple(seed=0, minutes=10, trials=12))
        predict = task.reference(model)
        last: dict[str, dict[str, float]] = {}
        for samples in schema.read(view, "test", model.settings):
            made = predict({n: t[-1:] for n, t in samples.tensors.items()})
            name_of = view.entities[int(samples.entity[-1])]
            last[name_of] = {n: float(made[n][0]) for n in ("expected", "low", "high")}
    ends = [last[f"test-{n + 1}"] for n in range(len(left))]
    expected = np.array([e["expected"] for e in ends])
    capped = np.minimum(left, cap) if cap else left
    inside = [e["low"] <= c <= e["high"] for e, c in zip(ends, capped, strict=True)]
    return {
        "units": len(left),
        "rmse": float(np.sqrt(((expected - capped) ** 2).mean())),
        "rmse_raw": float(np.sqrt(((expected - left) ** 2).mean())),
        "phm08": float(phm08(expected - capped).sum()),
        "phm08_raw": float(phm08(expected - left).sum()),
        "coverage": float(np.mean(inside)),
        "width": float(np.mean([e["high"] - e["low"] for e in ends])),
    }


if __name__ == "__main__":
    print(json.dumps(judge(Path(sys.argv[1]), sys.argv[2]), indent=2))
