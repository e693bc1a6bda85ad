"""What the factory's plan says to one device; a pure reading of signed JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from genba.core.problem import Problem
from genba.edge.agent.values import Confirmed, Event, Rejected, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """The plan, as far as it concerns one device; releases by number."""

    release: int = 0  # that it shall run; 0 for none
    withdrawn: Mapping[int, str] = field(default_factory=dict)  # why
    rejected: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # by whom, why
    confirmed: Mapping[int, str] = field(default_factory=dict)  # by whom


def read_orders(plan: Mapping[str, Any], device: str, line: str) -> Orders:
    """Return what a plan says to a device.

    Raises:
        Problem: G681 for a plan that cannot be read, which only a newer factory writes.

    Example:
        >>> plan = {"format": 1, "lines": {"pump": {"release": 4, "devices": ["p1"]}}}
        >>> read_orders(plan, "p1", "pump").release, read_orders(plan, "p2", "pump").release
        (4, 0)
    """
    try:
        if plan["format"] != 1:
            raise ValueError(f"its format is {plan['format']!r}")
        mine = plan.get("devices", {}).get(device, {})
        all_ = plan.get("lines", {}).get(line, {})
        only = all_.get("devices")
        common = 0 if only is not None and device not in only else int(all_.get("release", 0))
        return Orders(
            release=int(mine.get("release", common)),
            withdrawn={int(n): str(why) for n, why in all_.get("withdrawn", {}).items()},
            rejected={
                int(n): (str(said["by"]), str(said.get("reason", "")))
                for n, said in mine.get("rejected", {}).items()
            },
            confirmed={int(n): str(who) for n, who in mine.get("confirmed", {}).items()},
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Problem(
            "G681",
            "The plan of the factory cannot be read.",
            why=f"{type(error).__name__}: {error}",
            tries=["pip install --upgrade genba-edge", "genba explain G681"],
        ) from error


def list_path(line: str, release: int) -> str:
    """Return the path under which the list of a release is signed."""
    return f"{line}/{release}.json"


def decisions(orders: Orders, state: State) -> Iterator[Event]:
    """Yield what people at the factory decided, as far as it is news to this device."""
    for release, why in orders.withdrawn.items():
        if state.refusal(release) is None:
            yield Rejected(release=release, by="the factory", reason=why)
    for release, (by, reason) in orders.rejected.items():
        if state.refusal(release) is None:
            yield Rejected(release=release, by=by, reason=reason)
    for release, by in orders.confirmed.items():
        yield Confirmed(release=release, by=by)
