"""What the tokens of a language model cost; `genba.edge.timing_talk` measures them."""

from collections.abc import Mapping
from typing import Final

from genba.core.values import Measure
from genba.edge.timing_talk import ANSWER_TOKENS, talk_timings
from genba.targets.cost import bill

__all__ = ["per_thousand", "talk_timings"]

_PER: Final = 1_000  # tokens that costs are given for
_MS_PER_S: Final = 1e3


def per_thousand(found: Mapping[str, Measure]) -> dict[str, Measure]:
    """Return what a thousand tokens cost when several people ask, modelled from measured seconds.

    Args:
        found: As `talk_timings` returns it.

    Example:
        >>> one = {"tokens_per_s_together": Measure(value=100.0), "cpu_ms": Measure(value=640.0)}
        >>> str(per_thousand(one)["joules_per_1k_tokens"])
        '100 J [60 to 160] (modelled)'
    """
    seconds = _PER / found["tokens_per_s_together"].value
    cpu_seconds = found["cpu_ms"].value / ANSWER_TOKENS * _PER / _MS_PER_S
    spent = bill(seconds, cpu_seconds)
    return {"joules_per_1k_tokens": spent.joules, "cost_usd_per_1k_tokens": spent.cost_usd}
