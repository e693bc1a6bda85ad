"""Retrain when people have labelled enough since the last training."""

from genba.loop.state import LineState


class LabelTrigger:
    """Accepted labels and corrections; duplicates and late ones do not count."""

    def reason(self, state: LineState, threshold: float, now_ms: int) -> str | None:
        """Say how many labels have come in, or None.

        Args:
            state: The folded line.
            threshold: Labels needed; twice as many after each refused challenger in a row.
            now_ms: Not used.
        """
        del now_ms
        needed = max(1.0, threshold) * state.patience
        if state.evidence.labels < needed:
            return None
        return f"{state.evidence.labels} labels since the last training, {needed:g} asked for"
