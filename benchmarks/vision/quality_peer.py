# mypy: ignore-errors
"""pyod's detectors on given features, in an environment of their own: JSON on standard output.

Usage: python quality_peer.py FOLDER, which holds train.npy, good.npy and bad.npy.
"""

import json
import sys
from pathlib import Path

import numpy as np
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.models.pca import PCA

folder = Path(sys.argv[1])
train, good, bad = (
    np.load(folder / f"{n}.npy", allow_pickle=False) for n in ("train", "good", "bad")
)
mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
train, good, bad = ((x - mean) / spread for x in (train, good, bad))
detectors = {
    "KNN": KNN(n_neighbors=5),
    "PCA": PCA(n_components=0.95, svd_solver="full", random_state=0),
    "IForest": IForest(n_estimators=200, random_state=0),
}
found = {}
for name, detector in detectors.items():
    detector.fit(train)
    found[name] = {
        "good": [float(s) for s in detector.decision_function(good)],
        "bad": [float(s) for s in detector.decision_function(bad)],
    }
print(json.dumps(found))
