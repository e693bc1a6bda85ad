"""AutoETS and MSTL of statsforecast, fitted anew at every origin; talks JSON."""

import json
import sys
import time
import warnings

import numpy as np
from statsforecast.models import MSTL, AutoETS

DAY, WEEK = 48, 336


def main() -> None:
    given = json.load(sys.stdin)
    values = np.array(given["values"])
    models = {
        "MSTL with AutoETS": MSTL(season_length=[DAY, WEEK], trend_forecaster=AutoETS(model="ZZN")),
        "AutoETS": AutoETS(season_length=DAY, model="ZZZ"),
    }
    found = {}
    for name, model in models.items():
        started = time.process_time()
        made = [
            model.forecast(y=values[at + 1 - given["history"] : at + 1], h=given["ahead"])["mean"]
            for at in given["origins"]
        ]
        found[name] = {
            "forecasts": np.stack(made).tolist(),
            "cpu_seconds": time.process_time() - started,
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
