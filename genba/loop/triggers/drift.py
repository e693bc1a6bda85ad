"""Retrain when what comes in, or what goes out, no longer looks like the calibration data."""

from typing import Final

from genba.loop.state import LineState

#: Windows in a row in which the same channel must have drifted: one may be chance or a storm.
WINDOWS: Final = 2


class DriftTrigger:
    """Population stability index (PSI) above the threshold, and above what chance explains.

    The watch stage marks a window as drifted when its PSI is above the line's threshold and above
    the highest that undisturbed data of the same length shows (the null quantile in the package).
    """

    def reason(self, state: LineState, threshold: float, now_ms: int) -> str | None:
        """Name the channel that drifted longest, or None.

        Args:
            state: The folded line.
            threshold: Smallest PSI that matters; 0.1 is called small, 0.25 large.
            now_ms: Not used; drift is counted in windows.
        """
        del now_ms
        needed = WINDOWS * state.patience
        found = [
            (streak.windows, streak.statistic, name, streak.null_q)
            for name, streak in state.evidence.drift.items()
            if streak.windows >= needed and streak.statistic > max(threshold, streak.null_q)
        ]
        if not found:
            return None
        windows, statistic, name, null_q = max(found)
        return (
            f"{name} has PSI {statistic:.3f}, above {threshold:g} and above the {null_q:.3f} that "
            f"chance explains, in {windows} windows in a row"
        )
