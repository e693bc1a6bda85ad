"""Olive's TPE search over a measured table; runs in Olive's own environment.

`olive_search.py TABLE`: a JSON object {points: [{runtime, spread, batch, cpu_ms: [of each pass],
feasible: [of each pass]}], measurements, seeds}. Prints the places of the choices as JSON. Olive's
sampler asks for points, and is told the CPU time of one pass; a point that is not feasible is given
back as pruned, as Olive does with what misses a goal.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from olive.evaluator.metric_result import SubMetricResult
from olive.search.samplers import TPESampler
from olive.search.search_parameter import Categorical, Conditional
from olive.search.search_space import SearchSpace

GOAL = "cpu_ms"


def choice(table: dict[str, Any], seed: int) -> int | None:
    """Search once and return the place of the best point that was met, None where none fits."""
    points = table["points"]
    runtimes = list(dict.fromkeys(p["runtime"] for p in points))
    spreads = {
        (r,): Categorical(list(dict.fromkeys(p["spread"] for p in points if p["runtime"] == r)))
        for r in runtimes
    }
    batches = list(dict.fromkeys(p["batch"] for p in points))
    space = SearchSpace(
        [
            ("runtime", Categorical(runtimes)),
            ("spread", Conditional(parents=("runtime",), support=spreads)),
            ("batch", Categorical(batches)),
        ]
    )
    goals = {GOAL: {"higher_is_better": False, "priority": 1}}
    sampler = TPESampler(space, {"seed": seed, "max_samples": 0}, goals)
    place = {(p["runtime"], p["spread"], p["batch"]): at for at, p in enumerate(points)}
    chance, found, measured = random.Random(seed), [], 0
    for _ in range(20 * table["measurements"]):
        if measured == table["measurements"]:
            break
        sample = sampler.suggest()
        if sample is None:
            break
        values = {name: value for name, (_, value) in sample.values.items()}
        at = place.get((values["runtime"], values["spread"], values["batch"]))
        if at is None:  # a combination that there is not: Olive would not evaluate it either
            sampler.record_feedback_signal(sample.index, None, should_prune=True)
            continue
        measured += 1
        number = chance.randrange(len(points[at]["cpu_ms"]) or 1)
        if not points[at]["feasible"] or not points[at]["feasible"][number]:
            sampler.record_feedback_signal(sample.index, None, should_prune=True)
            continue
        value = points[at]["cpu_ms"][number]
        found.append((value, at))
        told = SubMetricResult(value=value, priority=1, higher_is_better=False)
        sampler.record_feedback_signal(sample.index, {GOAL: told})
    return min(found)[1] if found else None


def main() -> None:
    """Search with every seed."""
    table = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps([choice(table, seed) for seed in range(table["seeds"])]))


if __name__ == "__main__":
    main()
