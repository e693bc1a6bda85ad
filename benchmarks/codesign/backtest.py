"""How far modelled latency and CPU time are off, and how often the interval holds the measured one.

`python -m benchmarks.codesign.backtest`. Each model is predicted from the measurements of all
others on this machine; see `genba.codesign.modelled`. Points are those of the three grids (one
pass) and of the zoo.
"""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.codesign.grid import path_of
from benchmarks.codesign.searches import profile_of, seen, works
from benchmarks.codesign.subjects import HOME, NAMES
from benchmarks.codesign.table import Grid
from benchmarks.codesign.zoo import TARGET
from genba.codesign.modelled import BUSY, METRICS, Model, Seen, back_test
from genba.codesign.modelled_points import read
from genba.codesign.modelled_terms import Metric
from genba.targets.profile import Profile


def measured(home: Path) -> list[Seen]:
    """Return every measured point of this machine."""
    found = read(home, TARGET)
    for name in NAMES:
        if path_of(name).is_file():
            found += seen(Grid(name), works(name, home), number=0)
    return found


def plain(profile: Profile, points: Sequence[Seen], metric: Metric) -> dict[str, float]:
    """Return the median error of the roofline alone, and of ours on the same points: no trees."""
    bare = Model(profile)
    known = [p for p in points if bare.predict(p.work, p.usage)]
    quiet = [p for p in known if metric == "cpu_ms" or p.load <= BUSY * profile.cores]
    errors = [
        abs(math.log(bare.predict(p.work, p.usage)[metric].value / getattr(p, metric)))
        for p in quiet
    ]
    ours = back_test(profile, known, metric)
    assert ours is not None
    return {
        "roofline_alone": math.expm1(statistics.median(errors)),
        "corrected": ours.median_error,
    }


def report(home: Path) -> dict[str, Any]:
    """Return error and coverage of this machine, and how wide the intervals are."""
    profile = profile_of(home)
    if profile is None:
        raise SystemExit("first: genba targets probe")
    points = measured(home)
    model = Model(profile, points)
    found: dict[str, Any] = {
        "target": f"{profile.processor}, {profile.cores:g} cores",
        "probed": profile.dated,
        "load": [min(p.load for p in points), max(p.load for p in points)],
    }
    for metric in METRICS:
        tested = back_test(profile, points, metric)
        assert tested is not None
        one = model.predict(points[0].work, points[0].usage)[metric]
        found[metric] = {
            "median_error": tested.median_error,
            "coverage": tested.coverage,
            "points": tested.points,
            "models": tested.models,
            "interval_times": (one.high or math.inf) / one.value,
            "without_trees": plain(profile, points, metric),
        }
    return found


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=HOME)
    print(json.dumps(report(parser.parse_args().home), indent=1))


if __name__ == "__main__":
    main()
