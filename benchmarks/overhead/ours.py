"""Ten trivial stages in one Genba run, in process; prints seconds as JSON."""

import json
import tempfile
import time
from pathlib import Path

from genba.core.line import Data, Line
from genba.runs.run import execute
from genba.runs.stage import Result, Stage, StageContext
from genba.store.home import Store


def step(context: StageContext) -> Result:
    """Return how many stages came before."""
    return {"number": sum(r["number"] + 1 for r in context.inputs.values())}


def main() -> None:
    """Run the stages twice on one store; the second run finds every result."""
    names = [f"step-{number}" for number in range(10)]
    stages = [Stage(name, step, after=(names[i - 1],) if i else ()) for i, name in enumerate(names)]
    line = Line(name="ten", task="sensor.anomaly", data=Data(source="files:none"))
    seconds = []
    with tempfile.TemporaryDirectory() as home, Store.open(Path(home)) as store:
        for _ in range(2):
            start = time.perf_counter()
            outcome = execute(stages, line=line, store=store).outcome
            seconds.append(time.perf_counter() - start)
            assert outcome == "done"
    print(json.dumps({"cold_s": seconds[0], "again_s": seconds[1]}))


if __name__ == "__main__":
    main()
