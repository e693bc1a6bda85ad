"""Wait, for a bounded time, until nobody else uses the cores; say how busy they were."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LOOK_S: Final = 0.2
_PAUSE_S: Final = 0.5
_ENOUGH: Final = 0.25  # cores of others; below, wall times repeat
_IDLE: Final = (3, 4)  # fields of /proc/stat: idle, waiting for a disk


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How busy the machine was with others when something was measured."""

    others: float  # cores that other processes kept busy
    waited_s: float
    quiet: bool

    @property
    def sentence(self) -> str:
        """What a reader of wall times must know.

        Example:
            >>> Load(others=1.4, waited_s=30.0, quiet=False).sentence
            'it never got quiet: others kept 1.4 cores busy after 30 s of waiting'
        """
        if self.quiet:
            return f"others kept {self.others:.1f} cores busy"
        waited = f" after {self.waited_s:.0f} s of waiting" if self.waited_s >= 1 else ""
        return f"it never got quiet: others kept {self.others:.1f} cores busy{waited}"


def busy_with_others(look_s: float = _LOOK_S, root: Path = Path("/")) -> float:
    """Return how many cores processes other than this one and its children kept busy just now.

    Zero where the system does not say.
    """
    before, mine = _busy_s(root), _own_s()
    began = time.monotonic()
    time.sleep(look_s)
    after = _busy_s(root)
    if before is None or after is None:
        return 0.0
    spent = time.monotonic() - began
    return max(0.0, (after - before) - (_own_s() - mine)) / spent


def wait_for_quiet(most_s: float, look: Callable[[], float] = busy_with_others) -> Load:
    """Wait until others keep less than a quarter of a core busy, or until the time is over.

    Args:
        most_s: The longest to wait, in seconds.
        look: Measures how many cores others use.
    """
    began = time.monotonic()
    while True:
        others = look()
        waited = time.monotonic() - began
        if others <= _ENOUGH or waited >= most_s:
            return Load(others=others, waited_s=waited, quiet=others <= _ENOUGH)
        time.sleep(min(_PAUSE_S, max(0.0, most_s - waited)))


def _busy_s(root: Path) -> float | None:
    """Return the CPU seconds that all processes have used since the machine started."""
    try:
        fields = (root / "proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    ticks = [int(f) for f in fields[:8]]
    return sum(t for at, t in enumerate(ticks) if at not in _IDLE) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    times = os.times()
    return times.user + times.system
