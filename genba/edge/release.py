"""A release on a device: opened only when every byte is signed, trusted, newer and for here.

A release is a folder that `genba export edge` wrote. Nothing in it is used before its signature
was checked, and everything that is used is compared with the signed digest once more after it was
read, so that nobody can exchange a file in between.
"""

import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from genba.core.codec import decode, encode
from genba.core.digest import digest_bytes, digest_json
from genba.core.problem import Problem
from genba.core.values import EngineChoice, Measure
from genba.edge.interface import INTERFACE_FILE, Interface, read_interface
from genba.edge.memory import Mark, Memory, Passed, check_not_older
from genba.edge.oms import Signed, altered, verify
from genba.edge.package import MANIFEST_FILE, LoadedPackage, load
from genba.edge.predict import Predictor, golden_samples
from genba.edge.trust import Trust

FORMAT: Final = 1
STATEMENT_FILE: Final = "edge.json"
SAFETY_FILE: Final = "safety.json"
PACKAGE_FOLDER: Final = "package"
_DAY_MS: Final = 86_400_000
_WARM_UP: Final = 5  # predictions
_TRIES: Final = 3  # a busy moment must not condemn a device: the best of three counts
_PREDICTIONS: Final = 1_000  # of a try: of fewer, one interruption would be the 99th percentile
_TRY_S: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """What a factory states about a release: `edge.json`."""

    format: int = FORMAT
    line: str
    package: str  # id
    release: int  # rises with every release of the line; a device never goes back
    made_ms: int  # ms since 1970 UTC
    expires_ms: int | None = None
    target: str
    profile: str = ""  # sha256 of the target's profile, "" where it has none
    standing: Literal["measured", "unverified"]  # whether it was measured on that target
    deadline_ms: float | None = None  # the line's limit on p99 of one prediction
    engine: EngineChoice
    measures: Mapping[str, Measure] = field(default_factory=dict)  # of that engine, there
    runtime: str = ""  # the wheel that reads this


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release whose every byte was verified."""

    folder: Path
    package: LoadedPackage
    statement: Statement
    interface: Interface
    safety: Mapping[str, Any] | None  # None where the line has no safety manifest
    signed: Signed
    memory: Memory
    clock_ms: int  # the time that was believed: never before a release that this device used
    notes: tuple[str, ...] = ()  # sentences about what is odd and no reason to refuse

    @property
    def mark(self) -> Mark:
        """The release as a device remembers it."""
        made = self.statement.made_ms
        return Mark(release=self.statement.release, root=self.signed.root, made_ms=made)

    def predictor(self) -> Predictor:
        """Return what answers, after the self-test, and never use an older release again.

        Raises:
            Problem: As `tested`; G674 when a newer release was used in the meantime.
        """
        ready = self.tested()
        try:
            self.memory.accept(self.statement.line, self.mark)
        except BaseException:
            ready.engine.close()
            raise
        return ready

    def tested(self, *, again: bool = False) -> Predictor:
        """Return what answers, after the self-test; the device remembers only that it passed.

        The recorded answers are repeated every time. How long an answer takes is measured once on
        a device, and again when the device has changed.

        Args:
            again: Measure how long it takes in any case.

        Raises:
            Problem: G609 when it answers differently here, G677 when it is too slow here, G901
                when its runtime is not installed, G601 when that cannot run it.
        """
        ready = Predictor(self.package)
        try:
            difference = ready.self_test()
            if again or self.passed_here() is None:
                self._remember(ready, difference)
        except BaseException:
            ready.engine.close()
            raise
        return ready

    def passed_here(self) -> Passed | None:
        """Return the self-test that this release passed on this device as it is now, if any."""
        known = self.memory.of(self.statement.line)
        found = known.passed.get(self.signed.root) if known else None
        return found if found and found.machine == machine() else None

    def _remember(self, ready: Predictor, difference: float) -> None:
        p50, p99 = latency_ms(ready)
        deadline = self.statement.deadline_ms
        if deadline is not None and p99 > deadline:
            raise Problem(
                "G677",
                f"The release is too slow on this device: {p99:.3g} ms (p99) for one prediction.",
                where=self.statement.line,
                why=f"Its deadline is {deadline:g} ms; the best of {_TRIES} tries counts.",
                tries=[
                    f"genba codesign {self.statement.line} --target THIS_DEVICE",
                    "stop what else runs here, then genba-edge self-test DIR",
                    "genba explain G677",
                ],
            )
        passed = Passed(
            time_ms=self.clock_ms,
            difference=difference,
            latency_ms_p50=p50,
            latency_ms_p99=p99,
            machine=machine(),
        )
        self.memory.remember_pass(self.statement.line, self.mark, passed)


def open_release(
    folder: Path,
    trust: Trust,
    memory: Memory,
    now_ms: int,
    *,
    line: str | None = None,
    pinned: str = "",
) -> Release:
    """Open a release, or refuse it; nothing is written.

    The clock of a device may be off by years. It is believed only forward of the newest release
    that was used here (and of this one), whose time is signed; so a clock that stands at 1970
    lets nothing that expired come back.

    Args:
        folder: The release.
        trust: The keys of this device.
        memory: What this device had.
        now_ms: Its clock, ms since 1970 UTC.
        line: The only line that is wanted here.
        pinned: sha256 of the content that the agent of this device itself put in service (see
            `genba.edge.agent`); it is taken although a newer one was tried and sent back.

    Raises:
        Problem: G670 altered or not whole, G671 without a valid signature, G672 by a key that is
            not trusted, G673 by a revoked one, G674 older than what this device had, G675
            expired, G676 of another line, G678 when the device's own memory is damaged; G603
            when a newer version wrote it.
    """
    signed = verify(folder, trust.find)
    statement = _read_statement(_signed_bytes(folder, signed, STATEMENT_FILE))
    if line is not None and line != statement.line:
        raise Problem(
            "G676",
            f"This release is of the line {statement.line}, not of {line}.",
            where=str(folder),
            tries=[f"genba export edge {line} --to DIR", "genba explain G676"],
        )
    mark = Mark(release=statement.release, root=signed.root, made_ms=statement.made_ms)
    if mark.root != pinned:
        check_not_older(statement.line, mark, memory.of(statement.line))
    clock_ms = max(now_ms, memory.floor_ms, statement.made_ms)
    _check_fresh(statement, clock_ms, now_ms)
    package = _load_package(folder, signed, statement)
    interface = read_interface(_signed_bytes(folder, signed, INTERFACE_FILE))
    if (interface.line, interface.package) != (statement.line, package.id):
        raise altered(folder, f"{INTERFACE_FILE} belongs to another package.")
    safety = None
    if SAFETY_FILE in signed.files:
        safety = _json_object(folder, SAFETY_FILE, _signed_bytes(folder, signed, SAFETY_FILE))
    return Release(
        folder=folder,
        package=package,
        statement=statement,
        interface=interface,
        safety=safety,
        signed=signed,
        memory=memory,
        clock_ms=clock_ms,
        notes=_notes(statement, clock_ms, now_ms),
    )


def encode_statement(statement: Statement) -> bytes:
    """Return a statement as it is written to `edge.json`."""
    text = json.dumps(encode(statement), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def machine() -> str:
    """Return a digest of what must not change for a measurement of speed to hold.

    Example:
        >>> len(machine())
        64
    """
    name = platform.uname()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = sorted({at for at in lines if at.startswith(("model name", "CPU part", "Hardware"))})
    return digest_json([name.system, name.machine, models])


def latency_ms(ready: Predictor) -> tuple[float, float]:
    """Return p50 and p99 of one prediction on the recorded samples, of the quickest of tries."""
    inputs, _ = golden_samples(ready.package)
    rows = len(next(iter(inputs.values())))
    singles = [{name: t[i : i + 1] for name, t in inputs.items()} for i in range(rows)]
    for at in range(_WARM_UP):
        ready.engine.run(singles[at % rows])
    tries = [_measure(ready, singles) for _ in range(_TRIES)]
    return min(tries, key=lambda pair: pair[1])


def _measure(ready: Predictor, singles: list[dict[str, Any]]) -> tuple[float, float]:
    took: list[float] = []
    end = time.monotonic() + _TRY_S
    while len(took) < _PREDICTIONS and (not took or time.monotonic() < end):
        begin = time.perf_counter()
        ready.engine.run(singles[len(took) % len(singles)])
        took.append((time.perf_counter() - begin) * 1e3)
    took.sort()
    return took[len(took) // 2], took[math.ceil(0.99 * len(took)) - 1]  # the nearest rank


def _check_fresh(statement: Statement, clock_ms: int, now_ms: int) -> None:
    if statement.expires_ms is None or clock_ms < statement.expires_ms:
        return
    if now_ms < statement.expires_ms:
        why = "A release that this device used was made later than that, whatever its clock says."
    else:
        why = f"This device's clock says {_date(now_ms)}; if that is wrong, set it."
    raise Problem(
        "G675",
        f"Release {statement.release} of {statement.line} expired {_date(statement.expires_ms)}.",
        where=statement.line,
        why=why,
        tries=["date -u", f"genba export edge {statement.line} --to DIR", "genba explain G675"],
    )


def _notes(statement: Statement, clock_ms: int, now_ms: int) -> tuple[str, ...]:
    behind = clock_ms - now_ms
    notes = []
    if behind > _DAY_MS:
        notes.append(
            f"This device's clock is {behind / _DAY_MS:,.0f} days behind a release that it has; "
            f"{_date(clock_ms)} is taken in its place."
        )
    if statement.standing == "unverified":
        notes.append(f"It was not measured on {statement.target} where it was made.")
    return tuple(notes)


def _load_package(folder: Path, signed: Signed, statement: Statement) -> LoadedPackage:
    prefix = f"{PACKAGE_FOLDER}/"
    names = {
        digest: path.removeprefix(prefix)
        for path, digest in signed.files.items()
        if path.startswith(prefix)
    }

    def read(digest: str) -> bytes:
        if digest not in names:
            raise altered(folder, f"A file of the package is missing: sha256 {digest[:16]}….")
        return (folder / PACKAGE_FOLDER / names[digest]).read_bytes()

    manifest = _signed_bytes(folder, signed, f"{prefix}{MANIFEST_FILE}")
    package = load(manifest, read, expect=statement.package)
    if package.manifest.line != statement.line:
        raise altered(folder, f"{STATEMENT_FILE} and the package are of different lines.")
    return package


def _signed_bytes(folder: Path, signed: Signed, path: str) -> bytes:
    """Return a file's bytes if they are, now that they have been read, those that were signed."""
    try:
        data = (folder / path).read_bytes()
    except OSError as error:
        raise altered(folder, f"{path} cannot be read: {error.strerror}.") from error
    if digest_bytes(data) != signed.files.get(path):
        raise altered(folder, f"{path} is not what was signed.")
    return data


def _read_statement(data: bytes) -> Statement:
    body = _json_object(Path(STATEMENT_FILE), STATEMENT_FILE, data)
    if body.get("format") != FORMAT:
        raise Problem(
            "G603",
            f"The release has format {body.get('format')!r}; this version reads format {FORMAT}.",
            where=STATEMENT_FILE,
            tries=["pip install --upgrade DIR/runtime/genba_edge-*.whl", "genba explain G603"],
        )
    try:
        return decode(Statement, body)
    except Problem as problem:
        raise altered(
            Path(STATEMENT_FILE), f"{STATEMENT_FILE} is damaged: {problem.what}"
        ) from problem


def _json_object(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise altered(folder, f"{name} is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise altered(folder, f"{name} is no object.")
    return body


def _date(time_ms: int) -> str:
    """Return a time as people write it; beyond the years that can be written, as it is."""
    try:
        return time.strftime("on %Y-%m-%d at %H:%M UTC", time.gmtime(time_ms / 1e3))
    except (ValueError, OverflowError, OSError):
        return f"at {time_ms} ms"
