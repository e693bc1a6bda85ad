"""Retrain when predictions have become too dear and a new model could earn its training back."""

from genba.loop.economics import MIN_PREDICTIONS, retrain_case
from genba.loop.state import LineState


class CostTrigger:
    """Cost of a thousand predictions in USD, modelled from their CPU time."""

    def reason(self, state: LineState, threshold: float, now_ms: int) -> str | None:
        """Say what a thousand predictions cost and what a retrain would save, or None.

        Args:
            state: The folded line.
            threshold: Highest acceptable cost of a thousand predictions, USD.
            now_ms: Not used.
        """
        del now_ms
        if state.evidence.predictions < MIN_PREDICTIONS * state.patience:
            return None
        case = retrain_case(state, threshold)
        if case is None or case.now_usd <= threshold or not case.pays:
            return None
        return (
            f"a thousand predictions cost {case.now_usd:.3g} USD, above {threshold:g}; "
            f"{case.sentence}"
        )
