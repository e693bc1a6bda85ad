"""Genba's ingest of the file, with everything it does for a line."""

import json
import resource
import sys
import time
from pathlib import Path

from genba.core.line import Check, Data, Line
from genba.data.ingest import ingest
from genba.data.sources.files import FileSource
from genba.store.home import Store


def main(path: str, home: Path) -> dict[str, object]:
    data = Data(
        source=f"files:{path}",
        time="Date_time",
        entity="Wind_turbine_name",
        inputs=("Ws_avg", "Ba_avg", "Ot_avg"),
        output="P_avg",
        checks={"Ot_avg": Check(min=-30, max=60)},
    )
    line = Line(name="wind-farm", task="sensor.anomaly", data=data)
    with Store.open(home / "home") as store:
        start = time.perf_counter()
        version = ingest(FileSource(path, data), line, store)
        seconds = time.perf_counter() - start
        sheet = json.loads(store.blobs.read(version.sheet))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stuck = sheet["stuck"]["Ot_avg"]
    counts = {
        "kept": version.rows,
        "rejected": sum(version.rejected.values()),
        "gaps": sheet["time"]["gaps"],
        "stuck": stuck["runs"] + stuck["resting_runs"],
        "purged": sheet["split"]["rows"]["purged"],
    }
    return {"seconds": seconds, "peak_mib": peak, "counts": counts}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
