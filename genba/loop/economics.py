"""What predictions cost, what a retrain costs, and whether it pays.

The model is simple and stated: energy is CPU time times watts per core (`genba.targets.cost`);
a retrain costs what the newest run cost; it can at best bring the cost of a prediction back to a
goal; it pays when what that saves within thirty days, at the present rate of predictions, is more
than it costs. Every number is modelled, never measured.
"""

from dataclasses import dataclass
from typing import Final

from genba.core.values import Bill
from genba.loop.state import LineState
from genba.loop.traffic import Traffic
from genba.targets.cost import bill

#: Days within which a retrain must earn back what it cost.
HORIZON_DAYS: Final = 30.0
#: Predictions below which a cost per thousand is not worth stating.
MIN_PREDICTIONS: Final = 1_000
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainCase:
    """What speaks for a retrain in money: modelled."""

    now_usd: float  # a thousand predictions
    cost_usd: float
    saving_usd: float
    predictions_per_day: float

    @property
    def pays(self) -> bool:
        """Whether it saves more than it costs."""
        return self.saving_usd > self.cost_usd

    @property
    def sentence(self) -> str:
        """The case in one sentence."""
        return (
            f"a retrain costs {self.cost_usd:.3g} USD and could save {self.saving_usd:.3g} USD in "
            f"{HORIZON_DAYS:g} days at {self.predictions_per_day:.3g} predictions a day (modelled)"
        )


def per_thousand(cpu_seconds: float, predictions: int) -> Bill | None:
    """Return what a thousand predictions cost, or None when there were too few to say.

    Args:
        cpu_seconds: Spent on all of them.
        predictions: How many there were.
    """
    if predictions < MIN_PREDICTIONS:
        return None
    share = cpu_seconds * 1_000 / predictions
    return bill(share, share)


def retrain_case(state: LineState, goal_usd: float) -> RetrainCase | None:
    """Weigh a retrain that would bring a thousand predictions back to a cost.

    Args:
        state: The folded line.
        goal_usd: Cost of a thousand predictions that the retrain is hoped to reach.

    Returns:
        The case, or None while too little has been served or no run has been paid for.
    """
    now = per_thousand(state.evidence.cpu_seconds, state.evidence.predictions)
    per_day = rate_per_day(state.stable)
    if now is None or per_day is None:
        return None
    seconds, cpu_seconds = state.spent
    saved = max(0.0, now.cost_usd.value - goal_usd) * per_day / 1_000
    return RetrainCase(
        now_usd=now.cost_usd.value,
        cost_usd=bill(seconds, cpu_seconds).cost_usd.value,
        saving_usd=saved * HORIZON_DAYS,
        predictions_per_day=per_day,
    )


def rate_per_day(traffic: Traffic) -> float | None:
    """Return predictions per day since the package became stable, or None without a span."""
    span_ms = traffic.to_ms - traffic.from_ms
    return traffic.n * _DAY_MS / span_ms if span_ms > 0 else None
