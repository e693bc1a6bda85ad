"""Rules for when a sensor fails: small trees that decide as the model does, without that sensor."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.tree import DecisionTreeClassifier

from genba.edge.safety.plan import Rule
from genba.learn.safety.calibration import numbers
from genba.learn.safety.series import Bools, Floats

_DEPTH: Final = 6
_LEAF: Final = 20
_SEED: Final = 0
_FEWEST: Final = 40  # alarms to learn a rule from


def fit_rule(values: Floats, alarm: Bools, inputs: Sequence[str], output: str) -> Rule | None:
    """Fit a tree to the model's decisions; None where there are too few to learn from.

    Args:
        values: Readings that are left [N, D], none missing.
        alarm: What the model decided, with all of them.
        inputs: Names of the columns.
        output: The name of the decision.
    """
    hits = int(alarm.sum())
    if min(hits, len(alarm) - hits) < _FEWEST:
        return None
    tree = DecisionTreeClassifier(
        max_depth=_DEPTH, min_samples_leaf=_LEAF, class_weight="balanced", random_state=_SEED
    )
    tree.fit(values, alarm)
    made = tree.tree_
    share = made.value[:, 0, :]
    leaf = made.children_left < 0
    return Rule(
        inputs=tuple(inputs),
        output=output,
        feature=tuple(int(f) for f in np.where(leaf, -1, made.feature)),
        threshold=numbers(np.where(leaf, 0.0, made.threshold)),
        left=tuple(int(i) for i in np.maximum(made.children_left, 0)),
        right=tuple(int(i) for i in np.maximum(made.children_right, 0)),
        value=tuple(float(v) for v in (share[:, 1] > share[:, 0]).astype(np.float64)),
        agreement=0.0,
    )


def decided(rule: Rule, values: Floats) -> Bools:
    """Return what a rule says of many rows."""
    node = np.zeros(len(values), dtype=np.int64)
    feature, threshold = np.array(rule.feature), np.array(rule.threshold)
    left, right = np.array(rule.left), np.array(rule.right)
    rows = np.arange(len(values))
    for _ in range(len(rule.feature)):
        inside = feature[node] >= 0
        if not inside.any():
            break
        at = np.maximum(feature[node], 0)
        lower = values[rows, at] <= threshold[node]
        node = np.where(inside, np.where(lower, left[node], right[node]), node)
    found: npt.NDArray[np.bool_] = np.array(rule.value)[node] > 0.5
    return found
