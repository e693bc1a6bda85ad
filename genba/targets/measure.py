"""Measuring one engine in this process; see `genba.edge.timing`, which devices have too."""

from typing import Final

from genba.core.protocols import Engine, Tensors
from genba.core.values import Measure
from genba.edge import timing

#: What is known of a package only once an engine was measured on the target; may be gates too.
MEASURED_LATER: Final = frozenset(
    {
        *("latency_ms_p50", "latency_ms_p99", "cpu_ms", "energy_mj", "memory_mib", "rows_per_s"),
        *("first_token_ms", "tokens_per_s", "tokens_per_s_together"),
        *("joules_per_1k_tokens", "cost_usd_per_1k_tokens"),
    }
)


def timings(engine: Engine, tensors: Tensors, *, seconds: float = 0.3) -> dict[str, Measure]:
    """Measure one prediction at a time, and rows per second in batches.

    Args:
        engine: A loaded engine.
        tensors: Real samples; they are used in turn.
        seconds: About how long to measure one prediction at a time.

    Returns:
        See `genba.edge.timing.timings`.
    """
    return timing.timings(engine, tensors, timing.Use(seconds=seconds))
