"""A computed part as a lane hands it on, for the tests of what is counted, kept and traced."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from genba.serve.lanes.jobs import Part
from genba.serve.oip.schema import Schema
from genba.testing.serving import ENTITY_NAMES, SIGNATURE

MODEL: Any = SimpleNamespace(package="p1", schema=Schema(SIGNATURE, ENTITY_NAMES))


def part(
    rows: int,
    first: int = 0,
    *,
    alarms: bool = False,
    bad: bool = False,
    error: Exception | None = None,
    **of_job: Any,
) -> Part:
    job: Any = SimpleNamespace(
        **{
            "rows": rows, "first": first, "given_up": False, "role": "stable", "received": 10.0,
            "received_ms": 1_000, "entity_names": None, "time": None, "trace": "", "pictures": (),
            **of_job,
        }
    )  # fmt: skip
    made = Part(MODEL, [job], started=10.001)
    made.seconds, made.finished = 0.001, 10.002
    windows = np.arange(rows * 12, dtype=np.float32).reshape(rows, 3, 4) + first
    made.tensors = {"window": windows, "entity": np.arange(rows) % 3 - 1}
    made.error = error
    if error is None:
        made.outputs = {
            "score": np.zeros(rows, dtype=np.float32),
            "alarm": np.full(rows, alarms),
            "expected": np.zeros((rows, 1), dtype=np.float32),
        }
        made.bad_rows = np.ones(rows, dtype=np.bool_) if bad else None
    return made
