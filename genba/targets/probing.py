"""Send the probe to a device, here or over any command, and make a profile of what it says."""

import secrets
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from genba.core.ids import check_name
from genba.core.problem import Problem
from genba.edge import probe
from genba.targets.answers import MOST_BYTES, Answer, Row, Unit, read_answer
from genba.targets.asking import Said, ask
from genba.targets.plausible import Heard, refuse_implausible
from genba.targets.profile import PerSecond, Profile, Rate

_THERE: Final = "python3"
_PATIENCE: Final = (3.0, 120.0)  # times the seconds asked for, and seconds for starting
_CRASHES: Final = frozenset({signal.SIGILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS})
_ENGINES: Final = ("onnxruntime", "openvino")
_SHELL: Final = 128  # a shell adds the signal to it, and ssh hands that on
_UNITS: Final[dict[Unit, PerSecond]] = {"GFLOP": "GFLOP/s", "GB": "GB/s", "calls": "calls/s"}
_WORDS: Final = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """How commands get to a device, and which interpreter is there."""

    reach: tuple[str, ...] = ()
    python: str = ""

    @property
    def interpreter(self) -> str:
        """The interpreter there, this one when it is here."""
        return self.python or (_THERE if self.reach else sys.executable)


def probe_target(
    name: str,
    where: Where,
    *,
    seconds: float = 60.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Measure a device and return its profile.

    A runtime that crashes the probe is left out, and the profile says so.

    Args:
        name: What to call it.
        where: How to get there.
        seconds: About how long to measure.
        tell: Who hears how far it is.

    Raises:
        Problem: G104 when it cannot be called that; G613 when the device cannot be reached, goes
            away or does not answer in time; G615 when what it answers is not accepted, G614 when
            it cannot be true.
    """
    check_name(name, "target")
    left = list(_ENGINES)
    crashed: list[str] = []
    while True:
        nonce = secrets.token_hex(16)
        asked_ms = time.time_ns() // 1_000_000
        tell(f"measuring for about {seconds:g} s" + (f" without {crashed[-1]}" if crashed else ""))
        said = _run(
            name, where, ["--seconds", f"{seconds:g}", "--nonce", nonce, "--engines", *left]
        )
        heard = Heard(asked_ms=asked_ms, answered_ms=time.time_ns() // 1_000_000)
        if said.code == 0 or said.endless:
            break
        if not (left and _signal(said.code) in _CRASHES):
            raise _gone(name, where, _words(said))
        crashed.append(left.pop())
    answer = read_answer(said.out, nonce, name)
    refuse_implausible(answer, heard, name)
    return _profile(name, where, answer, heard, crashed)


def _run(name: str, where: Where, asked: Sequence[str]) -> Said:
    """Run the probe there; it is sent over standard input, so nothing is left on the device."""
    factor, more = _PATIENCE
    limit_s = float(asked[1]) * factor + more
    command = [*where.reach, where.interpreter, "-", *asked]
    try:
        said = ask(
            command, Path(probe.__file__).read_bytes(), limit_s=limit_s, most_bytes=MOST_BYTES
        )
    except OSError as error:
        raise _gone(name, where, str(error)) from error
    if said.late:
        raise _gone(name, where, f"It did not answer within {limit_s:.0f} s.")
    return said


def _profile(
    name: str, where: Where, answer: Answer, heard: Heard, crashed: Sequence[str]
) -> Profile:
    facts = answer.machine
    offset, band = clock_offset_s(answer, heard)
    degrees = [t for t in answer.temperature_c if t is not None]
    return Profile(
        name=name,
        source="measured",
        dated=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(heard.answered_ms / 1000)),
        processor=facts.processor,
        architecture=facts.architecture,
        cores=facts.cores,
        memory_mib=facts.memory_mib,
        instructions=facts.instructions,
        system=facts.system,
        board=facts.board,
        clock_mhz=facts.clock_max_mhz or facts.clock_mhz,
        cache_mib=facts.cache_mib,
        accelerators=facts.accelerators,
        runtimes={"python": answer.python, **answer.runtimes},
        rates=tuple(_rate(row) for row in answer.rates),
        skipped=(
            *map(str, answer.skipped),
            *(f"{engine}: it crashed the probe" for engine in crashed),
        ),
        power=facts.power,
        energy_counters=facts.energy_counters,
        temperature_c=tuple(degrees) if len(degrees) == len(answer.temperature_c) else (),
        load=answer.load,
        last_to_first=round(_last_to_first(answer), 3),
        clock_offset_s=round(offset, 3),
        clock_band_s=round(band, 3),
        probed_s=round(answer.spent_s, 2),
        reach=where.reach,
        python=where.interpreter,
    )


def _rate(row: Row) -> Rate:
    return Rate(
        kind=row.kind,
        precision=row.precision,
        value=_digits(statistics.median(row.rates)),
        low=_digits(min(row.rates)),
        high=_digits(max(row.rates)),
        unit=_UNITS[row.unit],
        engine=row.engine,
        threads=row.threads,
        wall=_digits(row.wall_rate),
        repeats=len(row.rates),
    )


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _last_to_first(answer: Answer) -> float:
    """Return the speed of the last round over that of the first, the middle of all kernels."""
    single = [row.rates for row in answer.rates if row.threads == 1]
    return statistics.median(rates[-1] / rates[0] for rates in single)


def clock_offset_s(answer: Answer, heard: Heard) -> tuple[float, float]:
    """Return how far the device's clock is ahead of the factory's, and how well that is known.

    The probe began after it was asked for and ended before it was heard: each gives a bound. When
    they contradict each other the device's clock was set meanwhile, and the band says by how much.
    """
    most = (answer.began_ms - heard.asked_ms) / 1000
    least = (answer.ended_ms - heard.answered_ms) / 1000
    return (most + least) / 2, abs(most - least) / 2


def _signal(code: int) -> int:
    return -code if code < 0 else code - _SHELL


def _words(said: Said) -> str:
    lines = said.err.decode("utf-8", "replace").strip().splitlines()
    last = "".join(c for c in lines[-1] if c.isprintable())[:_WORDS] if lines else ""
    if _signal(said.code) in {int(s) for s in signal.Signals}:
        return f"It was ended by {signal.Signals(_signal(said.code)).name}. {last}".strip()
    return last or f"It ended with code {said.code}."


def _gone(name: str, where: Where, why: str) -> Problem:
    again = f"genba targets probe {name}"
    tries = [again, "genba explain G613"]
    if where.reach:
        by_hand = shlex.join([*where.reach, where.interpreter, "-V"])
        tries = [by_hand, f'{again} --reach "{shlex.join(where.reach)}"', tries[-1]]
    return Problem(
        "G613",
        f"The target {name} could not be measured: the probe did not come back.",
        where=" ".join(where.reach) or "this machine",
        why=why,
        tries=tries,
    )
