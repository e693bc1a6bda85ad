"""A target as people read it: what it is, what it does in a second, and what to mind."""

from collections.abc import Iterable
from typing import Final

from rich.console import RenderableType
from rich.table import Table

from genba.targets.energy import ASSUMED, watts_per_core
from genba.targets.profile import Profile, Rate
from genba.ui.cli.answer import table
from genba.ui.cli.figures import number, seconds

_THROTTLES: Final = 0.85  # of the speed it began with
_CLOCK_S: Final = 60.0
_CHANGED: Final = 1.25
_BUSY: Final = 0.5  # processes beside the probe, for each core
_YEAR_S: Final = 365.25 * 86_400


def profile_facts(profile: Profile, *, measurable: bool) -> list[tuple[str, str]]:
    """Return what a target is as names and values."""
    cores = f"{profile.cores:g} cores"
    clock = f" at {profile.clock_mhz:.0f} MHz" if profile.clock_mhz else ""
    cache = f", {profile.cache_mib:g} MiB of cache" if profile.cache_mib else ""
    found = [
        ("", profile.description),
        ("processor", f"{profile.processor} ({profile.architecture}), {cores}{clock}{cache}"),
        ("board", profile.board),
        ("memory", f"{number(profile.memory_mib)} MiB"),
        ("instructions", ", ".join(profile.instructions)),
        ("accelerators", ", ".join(profile.accelerators)),
        ("runtimes", ", ".join(f"{k} {v}" for k, v in profile.runtimes.items())),
        ("power", _power(profile)),
        ("heat", _heat(profile)),
        ("reached by", " ".join(profile.reach)),
        (
            "load",
            " before, ".join(f"{x:.1f}" for x in profile.load) + " after" * bool(profile.load),
        ),
        ("known from", _known_from(profile, measurable=measurable)),
    ]
    return [(name, text) for name, text in found if text]


def _known_from(profile: Profile, *, measurable: bool) -> str:
    if profile.source == "catalog":
        return f"documents, {profile.dated}: nothing was measured, all of it is modelled"
    if not profile.rates:
        return "this process; not probed yet" if measurable else "nothing"
    moment = profile.dated.replace("T", " ").replace("Z", " UTC")
    return f"the probe, {moment}, {seconds(profile.probed_s)}"


def _power(profile: Profile) -> str:
    if profile.meter is not None:
        watts, how = watts_per_core(profile.meter, profile.cores), "external meter"
    else:
        watts, how = profile.watts_per_core or ASSUMED, "assumed"
    core = f"{watts.value:.3g} W [{watts.low:.3g} to {watts.high:.3g}] per busy core ({how})"
    where = f"{profile.power}; " if profile.power != "unknown" else ""
    counters = ", ".join(profile.energy_counters)
    return f"{where}{core}" + (f"; counters: {counters}" if counters else "")


def _heat(profile: Profile) -> str:
    if not profile.temperature_c:
        return ""
    before, after = profile.temperature_c[0], profile.temperature_c[-1]
    return f"{before:.0f} °C before, {after:.0f} °C after"


def rates_table(profile: Profile) -> Table:
    """Return the rates, one line for each kind of work, precision and engine."""
    rows = [
        [
            _WORK[rate.kind],
            rate.precision,
            rate.engine or "any",
            ("GPU" if rate.on == "gpu" else number(rate.threads)),
            f"{number(_figures(rate.value))} {_unit(rate)}",
            f"{number(_figures(rate.low))} to {number(_figures(rate.high))}",
            number(_figures(rate.wall)) if rate.wall else rate.status,
        ]
        for rate in sorted(profile.rates, key=lambda r: (r.on, r.threads, _ORDER.index(r.kind)))
    ]
    last = "by the clock" if profile.source == "measured" else "status"
    head = ["work", "precision", "engine", "cores", "a second", "from to", last]
    return table(head, rows, right=("cores", "a second", "from to", "by the clock"))


def _unit(rate: Rate) -> str:
    return "GOP/s" if rate.precision == "int8" else rate.unit


_WORK: Final = {
    "gemm": "matrix by matrix",
    "gemv": "matrix by vector",
    "conv": "convolution",
    "depthwise": "depthwise conv.",
    "memory": "copying memory",
    "call": "empty calls",
}
_ORDER: Final = tuple(_WORK)


def _figures(value: float) -> float:
    return float(f"{value:.3g}")


def numbers_table(profile: Profile) -> Table:
    """Return the numbers of the catalogue, each with how far to trust it."""
    rows: Iterable[list[RenderableType]] = (
        [n.name, number(n.value), n.status, n.source] for n in profile.numbers
    )
    return table(["number", "value", "status", "source"], rows, right=("value",), whole=("number",))


def warnings(profile: Profile) -> list[str]:
    """Return what to mind about a profile, one sentence each."""
    found = [*profile.skipped]
    if profile.source == "measured" and not profile.rates:
        found.append("Without a probe nothing can be modelled for it, only measured.")
    slower = profile.last_to_first
    if slower is not None and slower < _THROTTLES:
        found.append(
            f"It became slower while it was measured: the last round ran at {slower:.0%} of the"
            " first. It throttles, or something else began to run; plan with the low ends."
        )
    if abs(profile.clock_offset_s) > max(_CLOCK_S, 2 * profile.clock_band_s):
        found.append(_clock(profile))
    if profile.load and max(profile.load) > _BUSY * profile.cores + 1:
        found.append(
            f"It was busy: {max(profile.load):.1f} processes wanted its {profile.cores:g} cores."
            " Rates of one core are by CPU time; those of several are too low."
        )
    if profile.power == "battery":
        found.append("It runs on a battery, and may compute more slowly than on mains.")
    return found


def _clock(profile: Profile) -> str:
    offset = abs(profile.clock_offset_s)
    text = f"{offset / _YEAR_S:.1f} years" if offset > _YEAR_S else seconds(offset)
    which = "ahead of" if profile.clock_offset_s > 0 else "behind"
    return (
        f"Its clock is {text} {which} this one. The profile is dated by this one; set its clock"
        " before it checks when a release expires."
    )


def compared(before: Profile, after: Profile) -> list[tuple[str, str]]:
    """Return how a device changed since it was probed last, where it changed clearly."""
    rows = []
    for rate in after.rates:
        old = before.rate(rate.kind, rate.precision, rate.engine, rate.threads)
        if old is not None and not _alike(old, rate):
            rows.append(
                f"{_WORK[rate.kind]} {rate.precision} in {rate.engine}, {rate.threads} at a time:"
                f" {number(_figures(old.value))} to {number(_figures(rate.value))} {rate.unit}"
            )
    text = [f"since {before.dated[:10]}", *[""] * len(rows)]
    return list(zip(text, rows or ["nothing changed by a quarter or more"], strict=False))


def _alike(old: Rate, new: Rate) -> bool:
    ratio = max(old.value, new.value) / max(min(old.value, new.value), 1e-12)
    return ratio < _CHANGED or (old.low <= new.high and new.low <= old.high)
