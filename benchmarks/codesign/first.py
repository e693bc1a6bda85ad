"""The first prediction of a fresh process: `python -m benchmarks.codesign.first RELEASE STATE`.

Nothing but the standard library is imported before the clock starts, so that all that the edge
runtime needs is counted.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

_KIB_PER_MIB = 1024
#: What must not be loaded on a device.
HEAVY = ("torch", "polars", "pyarrow", "sqlalchemy", "sklearn", "msgspec", "rich", "onnx")


def first_prediction(release: str, state: str) -> dict[str, Any]:
    """Open a release and answer once; runs in a process that has imported nothing yet."""
    began = time.perf_counter()
    from genba.edge.memory import Memory
    from genba.edge.predict import golden_samples
    from genba.edge.release import open_release
    from genba.edge.trust import Trust

    imported = time.perf_counter()
    here, now = Path(state), time.time_ns() // 1_000_000
    opened = open_release(Path(release), Trust.at(here), Memory.at(here), now)
    verified = time.perf_counter()
    ready = opened.tested()
    tested = time.perf_counter()
    inputs, _ = golden_samples(opened.package)
    ready.predict({name: tensor[:1] for name, tensor in inputs.items()})
    done = time.perf_counter()
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return {
        "import_s": imported - began,
        "verify_s": verified - imported,
        "self_test_s": tested - verified,
        "predict_s": done - tested,
        "whole_s": done - began,
        "peak_mib": int(sizes["VmHWM"].split()[0]) / _KIB_PER_MIB,
        "engine": opened.package.manifest.engine.name,
        "heavy": [name for name in HEAVY if name in sys.modules],
    }


if __name__ == "__main__":
    print(json.dumps(first_prediction(*sys.argv[1:])))
