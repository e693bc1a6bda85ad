"""This machine with the limits of another: a place to start from."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import ClassVar, Final

from genba.core.line import Limits
from genba.core.values import Measure
from genba.targets.cost import DeviceFile
from genba.targets.local import ThisMachine
from genba.targets.tables import read_table

# What the device can give one prediction, whatever a line asks for.
LIMITS: Final = Limits(latency_ms_p99=50, memory_mib=256, energy_mj=100)


class TemplateTarget(ThisMachine):
    """A target that is measured here and judged by limits of its own.

    Its name and power draw are in device.toml. A target that measures elsewhere (on a board, over
    a wire) has a `measure` of its own instead of the inherited one.
    """

    name: ClassVar[str] = "template-name"

    def __init__(self) -> None:
        super().__init__(device=read_table(DeviceFile, Path(__file__).with_name("device.toml")))

    def fits(self, measures: Mapping[str, Measure], limits: Limits) -> tuple[str, ...]:
        """Return one sentence per limit that is exceeded, of the line's and the device's own."""
        return super().fits(measures, tightest(limits, LIMITS))


def tightest(asked: Limits, own: Limits) -> Limits:
    """Return the smaller of each limit; one that is not set limits nothing.

    Example:
        >>> both = tightest(Limits(latency_ms_p99=2), Limits(latency_ms_p99=50, memory_mib=256))
        >>> both.latency_ms_p99, both.memory_mib, both.energy_mj
        (2, 256, None)
    """
    both = {f.name: (getattr(asked, f.name), getattr(own, f.name)) for f in fields(Limits)}
    return Limits(
        **{
            name: min((x for x in pair if x is not None), default=None)
            for name, pair in both.items()
        }
    )
