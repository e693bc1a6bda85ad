"""How well defects are found: Genba's default against pyod on the same split.

    python -m benchmarks.vision.quality [WHEEL OF SCIKIT-IMAGE]

Writes quality.json. pyod gets raw pixels (32 x 32) and, so that the comparison is about what sits
on the features and not about the features, the pooled features of the very backbone that Genba
uses.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import stamp
from benchmarks.vision.quality_sets import KINDS, PER_KIND, Set, SetView, sets
from genba.edge.images import decode, encode_png
from genba.learn.backbone import load
from genba.learn.ranking import auroc, auroc_measure, recall_at
from genba.runs.effort import Effort
from genba.tasks.vision.anomaly import VisionAnomaly

HERE = Path(__file__).parent
PEER = HERE.parent / ".peers" / "pyod"
REQUIREMENTS = ["pyod==3.6.0"]
SIZE = 224
TAPS = ["8", "16", "32", "head"]
Floats = npt.NDArray[np.float64]


def environment() -> Path:
    """Return the interpreter of pyod's environment, made if missing."""
    python = PEER / "bin" / "python"
    if not (PEER / "installed").exists():
        print("installing pyod ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (PEER / "installed").touch()
    return python


def ours(found: Set) -> dict[str, Any]:
    """Train with the defaults of a line and measure on the test set."""
    task, view = VisionAnomaly(), SetView(found)
    started = time.process_time()
    model = task.fit(view, task.derive(view.line, view), Effort.simple(minutes=10))
    spent = time.process_time() - started
    scores = task.score(task.reference(model), view, "test", model.settings)
    label, score = scores.evidence["label"], scores.evidence["score"]
    measures = scores.measures
    return {
        **summary(score[label == 0.0], score[label > 0.0]),
        "candidate": model.candidate,
        "chosen": {n: model.settings[n] for n in ("taps", "grid", "top")},
        "aupro": measures["aupro"].value,
        "overkill": measures["overkill"].value,
        "stated_overkill": model.settings["overkill"]["value"],
        "recall": measures["recall"].value,
        "simulated_auroc": measures["simulated_auroc"].value,
        "head_mb": measures["head_mb"].value,
        "training_cpu_s": spent,
    }


def summary(good: Floats, bad: Floats) -> dict[str, Any]:
    """Return the measures every method is compared by."""
    whole = auroc_measure(good, bad)
    assert whole is not None
    kinds = {
        kind: float(auroc(good, bad[i * PER_KIND : (i + 1) * PER_KIND]))
        for i, kind in enumerate(KINDS)
    }
    return {
        "auroc": whole.value,
        "interval": [whole.low, whole.high],
        "auroc_by_kind": kinds,
        "recall_at_overkill_5": float(recall_at(good, bad, 0.05)),
    }


def features(found: Set) -> dict[str, dict[str, Floats]]:
    """Return raw pixels and pooled features of every group of images."""
    backbone = load("efficientnet-lite0")
    groups = {
        "train": [*found.train, *found.calibrate],
        "good": found.good,
        "bad": [image for _, image, _ in found.bad],
    }
    made: dict[str, dict[str, Floats]] = {"pixels": {}, "lite0": {}}
    for name, images in groups.items():
        pixels = np.stack([decode(encode_png(image), SIZE) for image in images])
        small = pixels.reshape(len(pixels), 32, 7, 32, 7, 3).mean(axis=(2, 4, 5))
        made["pixels"][name] = small.reshape(len(pixels), -1)
        taps = backbone.features(pixels, TAPS)
        pooled = [v.mean(axis=(2, 3)) if v.ndim == 4 else v for v in taps.values()]
        made["lite0"][name] = np.concatenate(pooled, axis=1).astype(np.float64)
    return made


def peers(python: Path, given: Mapping[str, Floats]) -> dict[str, Any]:
    """Run pyod's detectors on features."""
    with tempfile.TemporaryDirectory() as folder:
        for name, values in given.items():
            np.save(Path(folder) / f"{name}.npy", values, allow_pickle=False)
        command = [str(python), str(HERE / "quality_peer.py"), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        name: summary(np.array(scores["good"]), np.array(scores["bad"]))
        for name, scores in json.loads(done.stdout).items()
    }


def main() -> None:
    """Measure every set, print a table and write the report."""
    wheel = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    python, report = environment(), {}
    for name, found in sets(wheel):
        row: dict[str, Any] = {"genba": ours(found)}
        for kind, given in features(found).items():
            row |= {f"pyod {n}, {kind}": r for n, r in peers(python, given).items()}
        report[name] = row
        best = max((r["auroc"], n) for n, r in row.items() if n != "genba")
        mine = row["genba"]
        print(
            f"{name:16} genba {mine['auroc']:.3f} ({mine['candidate']}), best peer {best[0]:.3f} "
            f"({best[1]}), overkill {mine['overkill']:.3f}, recall {mine['recall']:.3f}, aupro "
            f"{mine['aupro']:.3f}",
            flush=True,
        )
    result = {**stamp(), "versions": REQUIREMENTS, "defects": "drawn", "sets": report}
    (HERE / "quality.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
