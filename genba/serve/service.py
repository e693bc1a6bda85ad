"""One package in service: its lane, its counts and the parameters that hold for it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genba.core.protocols import Array
from genba.core.rollout import Placed, Rollout
from genba.serve.batch import Lane
from genba.serve.capture import Tally
from genba.serve.metrics import PackageMetrics
from genba.serve.models import LoadedModel


class Service:
    """A lane with its counts: since the last hand-over, and since it was loaded."""

    __slots__ = ("interval", "lane", "metrics", "model", "parameters", "retired")

    def __init__(self, model: LoadedModel, lane: Lane, metrics: PackageMetrics) -> None:
        self.model = model
        self.lane = lane
        self.metrics = metrics
        self.parameters = model.schema.parameters
        self.interval = Tally()
        self.retired = False

    def tune(self, values: Mapping[str, float]) -> None:
        """Take the values that were set in service; names the package does not have are nothing."""
        packaged = self.model.schema.parameters
        known = {name: value for name, value in values.items() if name in packaged}
        self.parameters = {**packaged, **known}

    def complete(self, tensors: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        """Add the parameters that a request does not set itself."""
        if not self.parameters:
            return tensors
        standing = {n: np.full(rows, v, dtype=np.float32) for n, v in self.parameters.items()}
        return {**standing, **tensors}

    def describe(self) -> dict[str, Any]:
        """Return what the package is and did, as JSON."""
        manifest = self.model.manifest
        told: dict[str, Any] = {
            "model": manifest.model,
            "engine": manifest.engine.name,
            "inline": self.lane.inline,
            "waiting": self.lane.waiting_rows,
            **self.metrics.counts(),
        }
        return {**told, "parameters": self.parameters} if self.parameters else told


def describe_rollout(rollout: Rollout) -> dict[str, Any]:
    """Return who has which role, as JSON."""
    return {
        "stable": _placed(rollout.stable),
        "canary": _placed(rollout.canary),
        "shadow": _placed(rollout.shadow),
        "previous": rollout.previous,
        "condemned": sorted(rollout.condemned),
    }


def _placed(placed: Placed | None) -> dict[str, Any] | None:
    if placed is None:
        return None
    return {"package": placed.package, "share": placed.share, "since_ms": placed.since_ms}
