"""Boosted trees as plain node arrays: grown by scikit-learn, kept, read and exported without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

from genba.learn.threads import one_thread

Floats = npt.NDArray[np.float64]

_CHUNK: Final = 8_192


@dataclass(frozen=True, kw_only=True, slots=True)
class Forest:
    """Trees of one or more targets; a node is a leaf when `left` points to itself."""

    feature: npt.NDArray[np.int32]  # [nodes]
    threshold: npt.NDArray[np.float32]  # [nodes] go left when value <= threshold
    left: npt.NDArray[np.int32]  # [nodes]
    right: npt.NDArray[np.int32]  # [nodes]
    value: Floats  # [nodes] of leaves; learning rate included
    root: npt.NDArray[np.int32]  # [trees]
    target: npt.NDArray[np.int32]  # [trees]
    base: Floats  # [targets]

    @property
    def depth(self) -> int:
        """The number of decisions on the longest way from a root to a leaf."""
        here, depth = self.root, 0
        while True:
            inner = here[self.left[here] != here]
            if not len(inner):
                return depth
            here, depth = np.concatenate([self.left[inner], self.right[inner]]), depth + 1

    def predict(self, x: npt.NDArray[np.float32]) -> Floats:
        """Return the sum of leaves [N, targets] for float32 features [N, F]."""
        depth = self.depth
        parts = [self._chunk(x[i : i + _CHUNK], depth) for i in range(0, len(x), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.base)))

    def _chunk(self, x: npt.NDArray[np.float32], depth: int) -> Floats:
        total = np.tile(self.base, (len(x), 1))
        flat, offset = x.ravel(), np.arange(len(x), dtype=np.int64) * x.shape[1]
        for root, target in zip(self.root, self.target, strict=True):
            node = np.full(len(x), root, dtype=np.int32)
            for _ in range(depth):
                goes = flat[offset + self.feature[node]] <= self.threshold[node]
                node = np.where(goes, self.left[node], self.right[node])
            total[:, target] += self.value[node]
        return total

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the trees as named arrays, ready for safetensors."""
        return {f"tree.{name}": getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Forest":
        """Return the trees that `to_arrays` wrote."""
        return cls(**{name: arrays[f"tree.{name}"] for name in cls.__slots__})


def grow(
    x: npt.NDArray[np.float32],
    target: Floats,
    settings: Mapping[str, Any],
    columns: Sequence[npt.NDArray[np.int64]],
) -> Forest:
    """Grow boosted trees, one ensemble per target.

    One thread: sums over rows then have one order, and the result the same bits.

    Args:
        x: Features [N, F], no missing values.
        target: [N, targets].
        settings: iterations, leaves, rate (learning rate), min_rows per leaf.
        columns: For each target, the features its trees may use.
    """
    grown = []
    with one_thread():
        for t, use in enumerate(columns):
            model = HistGradientBoostingRegressor(
                max_iter=int(settings["iterations"]),
                max_leaf_nodes=int(settings["leaves"]),
                learning_rate=float(settings["rate"]),
                min_samples_leaf=int(settings["min_rows"]),
                early_stopping=False,
                random_state=0,
            )
            model.fit(x[:, use].astype(np.float64), target[:, t])
            grown.append((model, use))
    return _collect(grown)


def _collect(grown: Sequence[tuple[Any, npt.NDArray[np.int64]]]) -> Forest:
    parts: dict[str, list[npt.NDArray[Any]]] = {
        name: [] for name in ("feature", "threshold", "left", "right", "value")
    }
    roots, targets, start = [], [], 0
    for t, (model, use) in enumerate(grown):
        for (predictor,) in model._predictors:
            nodes = predictor.nodes
            here = start + np.arange(len(nodes))
            leaf = nodes["is_leaf"].astype(bool)
            parts["feature"].append(np.where(leaf, 0, use[nodes["feature_idx"]]))
            parts["threshold"].append(np.where(leaf, 0, _round_down(nodes["num_threshold"])))
            parts["left"].append(np.where(leaf, here, start + nodes["left"].astype(np.int64)))
            parts["right"].append(np.where(leaf, here, start + nodes["right"].astype(np.int64)))
            parts["value"].append(np.where(leaf, nodes["value"], 0.0))
            roots.append(start)
            targets.append(t)
            start += len(nodes)
    types = {"threshold": np.float32, "value": np.float64}
    return Forest(
        **{n: np.concatenate(p).astype(types.get(n, np.int32)) for n, p in parts.items()},
        root=np.array(roots, dtype=np.int32),
        target=np.array(targets, dtype=np.int32),
        base=np.array([float(np.ravel(m._baseline_prediction)[0]) for m, _ in grown]),
    )


def _round_down(threshold: Floats) -> npt.NDArray[np.float32]:
    """Return the largest float32 not above: x <= t then decides the same for every float32 x."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
