"""`genba targets`: devices that packages can be made for, and measuring them."""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cyclopts import Parameter
from rich.console import RenderableType

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.core.resolve import names
from genba.runs.progress import ConsoleProgress
from genba.store.home import home_path
from genba.targets.energy import watts_per_core
from genba.targets.probing import Where, probe_target
from genba.targets.profile import (
    MeterReading,
    Profile,
    profile_path,
    read_profile,
    with_meter,
    write_profile,
)
from genba.targets.registry import HERE, open_target, target_names
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import number
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.targets_report import (
    compared,
    numbers_table,
    profile_facts,
    rates_table,
    warnings,
)

_SECONDS: Final = 60.0
_LEAST_SECONDS: Final = 0.2
_MOST_SECONDS: Final = 3600.0
_ACCURACY: Final = 0.03  # of a plug meter that says nothing better


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Getting:
    """How to get to a device that is probed."""

    reach: str = ""
    """What to put before a command so that it runs there, such as "ssh -o BatchMode=yes
    pi@line7" (default: nothing, it is here)."""

    python: str = ""
    """The interpreter there, with numpy and an engine (default: python3; here, this one)."""

    seconds: float = _SECONDS
    """About how long to measure."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Two readings of a power meter."""

    idle: float | None = None
    """Watts of the whole device while it does nothing."""

    full: float | None = None
    """Watts while every core is busy."""

    accuracy: float = _ACCURACY
    """Of one reading, as a fraction: 0.03 is 3 %."""


GETTING: Final = Getting()
READING: Final = Reading()


def targets(
    do: Literal["list", "show", "probe", "meter"] = "list",
    name: str = "",
    /,
    *,
    getting: Getting = GETTING,
    reading: Reading = READING,
    options: Options = DEFAULT,
) -> Answer:
    """List the devices that packages can be made for, or measure one.

    `genba targets probe NAME --reach "ssh user@host"` sends one small file to a device, which
    measures it in about a minute, and keeps a signed profile. `genba targets meter NAME --idle W
    --full W` calibrates its energy with a power meter.

    Args:
        do: list, show, probe or meter.
        name: The target; this-machine when probing or metering and none is given.
        getting: How to get to a device that is probed.
        reading: Two readings of a power meter.
        options: Common options.
    """
    home = home_path(options.home)
    if do == "list":
        return _listed(home)
    if do == "show":
        return _shown(name or HERE, home)
    if do == "probe":
        return _probed(name or HERE, getting, home, quiet=options.json)
    return _metered(name or HERE, reading, home)


def _listed(home: Path) -> Answer:
    rows: list[list[RenderableType]] = []
    data = []
    for name, kind in target_names(home).items():
        profile = open_target(name, home).profile
        fastest, card = profile.rate("gemm", "fp32"), profile.rate("gemm", "fp16", on="gpu")
        rows.append(
            [
                name,
                _KINDS[kind],
                profile.processor,
                number(profile.cores),
                f"{profile.memory_mib / 1024:.3g} GiB",
                f"{fastest.value:.3g}" if fastest else "not probed",
                f"{card.value / 1000:,.3g}" if card else "",
            ]
        )
        data.append({"name": name, "kind": kind, **profile.facts()})
    head = ["target", "known from", "processor", "cores", "memory", *_FASTEST]
    return Answer(
        data={"targets": data},
        blocks=[
            heading("Targets that a package can be made for"),
            table(head, rows, right=("cores", "memory", *_FASTEST), whole=("target",)),
            facts([("", "What is known from documents is modelled until it is probed.")]),
        ],
        next=(
            "genba targets show NAME",
            "genba targets probe this-machine",
            'genba targets probe NAME --reach "ssh user@host"',
        ),
    )


_FASTEST: Final = ("core GFLOP/s", "GPU TFLOP/s")
_KINDS: Final = {"here": "this machine", "probed": "the probe", "catalog": "documents"}


def _shown(name: str, home: Path) -> Answer:
    target = open_target(name, home)
    profile = target.profile
    blocks: list[RenderableType] = [
        heading(f"Target {name}"),
        facts(profile_facts(profile, measurable=target.measurable)),
    ]
    if profile.rates:
        blocks.append(rates_table(profile))
    if profile.numbers:
        blocks.append(numbers_table(profile))
    blocks += _warned(profile)
    known = name == HERE or bool(profile.reach)
    again = f"genba targets probe {name}" + ("" if known else ' --reach "ssh user@host"')
    return Answer(
        data={"target": _plain(profile), "measurable": target.measurable},
        blocks=blocks,
        next=(again, f"genba codesign LINE --target {name}"),
    )


def _probed(name: str, getting: Getting, home: Path, *, quiet: bool) -> Answer:
    if not _LEAST_SECONDS <= getting.seconds <= _MOST_SECONDS:
        raise Problem(
            "G110",
            f"{getting.seconds:g} s is no time to measure in.",
            where="--seconds",
            why=f"It must be {_LEAST_SECONDS:g} to {_MOST_SECONDS:g}.",
            tries=[f"genba targets probe {name} --seconds 60"],
        )
    before = _earlier(name, home)
    where = _where(name, getting, before)
    progress = ConsoleProgress()
    try:
        tell = (lambda _: None) if quiet else progress.step
        found = probe_target(name, where, seconds=getting.seconds, tell=tell)
    finally:
        progress.close()
    if before is not None and before.meter is not None and _same(before, found):
        found = with_meter(found, before.meter)
    path = write_profile(home, found)
    blocks: list[RenderableType] = [
        heading(f"Target {name}: measured in {found.probed_s:.0f} s", mark="yes"),
        facts([*profile_facts(found, measurable=True), ("profile", str(path))]),
        rates_table(found),
        *_warned(found),
    ]
    if before is not None and _same(before, found):
        blocks.append(facts(compared(before, found)))
    return Answer(
        data={"target": _plain(found), "path": str(path)},
        blocks=blocks,
        next=(
            f"genba targets meter {name} --idle WATTS --full WATTS",
            f"genba codesign LINE --target {name}",
        ),
    )


def _where(name: str, getting: Getting, before: Profile | None) -> Where:
    """Return how to get to a device: as said, else as the last time."""
    try:
        reach = tuple(shlex.split(getting.reach))
    except ValueError as error:
        raise _no_way(name, f"{getting.reach!r} is no command: {error}.") from error
    here = name in names("target")
    if reach and here:
        what = f"{name} is here; a device that a command leads to needs a name of its own."
        again = f"genba targets probe line7 --reach {shlex.quote(getting.reach)}"
        raise Problem("G110", what, where="--reach", tries=[again])
    if not (reach or here or (before and before.reach)):  # else this machine would pass for it
        raise _no_way(name, f"How to get to {name} is not known.")
    if before is not None and not reach:
        return Where(reach=before.reach, python=getting.python or before.python)
    return Where(reach=reach, python=getting.python)


def _no_way(name: str, what: str) -> Problem:
    return Problem(
        "G110",
        what,
        where="--reach",
        tries=[f'genba targets probe {name} --reach "ssh user@host"', "genba targets probe"],
    )


def _metered(name: str, reading: Reading, home: Path) -> Answer:
    if reading.idle is None or reading.full is None:
        raise Problem(
            "G110",
            "genba targets meter needs two readings: --idle and --full.",
            where="genba targets meter",
            tries=[f"genba targets meter {name} --idle 8.2 --full 14.5"],
        )
    taken = MeterReading(
        idle_w=reading.idle,
        full_w=reading.full,
        accuracy=reading.accuracy,
        dated=time.strftime("%Y-%m-%d", time.gmtime()),
    )
    profile = open_target(name, home).profile
    watts = watts_per_core(taken, profile.cores)
    if profile.source == "catalog":
        raise Problem(
            "G617",
            f"{name} is known from its documents only; a meter reads a device that is there.",
            tries=[f'genba targets probe {name} --reach "ssh user@host"', "genba explain G617"],
        )
    path = write_profile(home, with_meter(profile, taken))
    return Answer(
        data={"target": name, "watts_per_core": encode(watts), "path": str(path)},
        blocks=[
            heading(f"Target {name}: one busy core draws {watts.value:.3g} W", mark="yes"),
            facts(
                [
                    (
                        "watts per core",
                        f"{watts.value:.3g} W [{watts.low:.3g} to {watts.high:.3g}]",
                    ),
                    ("from", watts.source),
                    ("idle", f"{taken.idle_w:g} W, not counted in the energy of a prediction"),
                    ("from now on", f"joules on {name} are estimated from this, not modelled"),
                    ("profile", str(path)),
                ]
            ),
        ],
        next=(f"genba targets show {name}", "genba run LINE"),
    )


def _earlier(name: str, home: Path) -> Profile | None:
    """Return the profile that a new one replaces; one that was altered is replaced unread."""
    path = profile_path(home, name)
    try:
        return read_profile(path, home) if path is not None else None
    except Problem:
        return None


def _same(before: Profile, after: Profile) -> bool:
    return (before.processor, before.cores) == (after.processor, after.cores)


def _warned(profile: Profile) -> list[RenderableType]:
    found = warnings(profile)
    notes = [("" if at else "note", text) for at, text in enumerate(found)]
    return [facts(notes)] if notes else []


def _plain(profile: Profile) -> dict[str, Any]:
    return {**encode(profile), "digest": profile.digest, "warnings": warnings(profile)}
