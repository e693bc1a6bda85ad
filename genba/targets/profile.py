"""What is known of a device: facts, rates with intervals, power; a dated, signed TOML file.

A profile is made by the probe on the device (`source = "measured"`), or from the catalogue of
devices that ships with Genba (`source = "catalog"`), and then every number says whether somebody
saw it in a document or remembers it. Whoever can write the file could make a slow device fast, so
a measured profile is signed with the key of the home that measured it.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from genba.core import io
from genba.core.codec import decode, encode
from genba.core.digest import canonical_json, digest_json
from genba.core.ids import NAME_PATTERN
from genba.core.problem import Problem
from genba.store.signing import Signer
from genba.targets.tables import Assumed
from genba.targets.written import toml

Kind = Literal["gemm", "gemv", "conv", "depthwise", "memory", "call"]
Precision = Literal["fp32", "fp64", "fp16", "bf16", "int8"]
Place = Literal["cpu", "gpu", "npu"]
Power = Literal["mains", "battery", "unknown"]
PerSecond = Literal["GFLOP/s", "GB/s", "calls/s"]
Status = Literal["measured", "seen", "memory"]

_FORMAT: Final = "genba-target-1"  # signed as well, so the signature fits nothing else
FOLDER: Final = "targets"  # in the home
_MOST_AHEAD_S: Final = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """How much of one kind of work a device does in a second.

    Of one thread, `value` is by CPU time: what an undisturbed core does. Of several it is by the
    clock. `low` and `high` are the least and most of the repeats (or the band of an assumption).
    """

    kind: Kind
    precision: Precision
    value: float
    low: float
    high: float
    unit: PerSecond
    engine: str = ""  # "" in the catalogue
    threads: int = 1
    on: Place = "cpu"
    wall: float | None = None  # by the clock, under the load of the moment
    repeats: int = 0
    status: Status = "measured"
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeterReading:
    """Two readings of a power meter: the whole device idle, and with every core busy."""

    idle_w: float
    full_w: float
    accuracy: float  # of one reading, as a fraction of it
    dated: str
    source: str = "external meter"


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A device as far as it is known."""

    name: str
    source: Literal["measured", "catalog"]
    dated: str  # by the clock of the factory, ISO 8601 UTC
    processor: str
    architecture: str
    cores: float
    memory_mib: int
    instructions: tuple[str, ...] = ()
    system: str = ""
    description: str = ""
    board: str = ""
    clock_mhz: float | None = None
    cache_mib: float | None = None
    accelerators: tuple[str, ...] = ()
    runtimes: Mapping[str, str] = field(default_factory=dict)  # library -> version
    rates: tuple[Rate, ...] = ()
    skipped: tuple[str, ...] = ()  # one sentence for each rate that could not be measured
    watts_per_core: Assumed | None = None
    meter: MeterReading | None = None
    power: Power = "unknown"
    energy_counters: tuple[str, ...] = ()
    temperature_c: tuple[float, ...] = ()  # before and after, where readable
    load: tuple[float, ...] = ()  # before and after: processes that wanted a core
    last_to_first: float | None = None  # speed of the last round over the first; low: it throttles
    clock_offset_s: float = 0.0  # the device's clock less the factory's
    clock_band_s: float = 0.0  # the offset is known this well
    probed_s: float = 0.0
    reach: tuple[str, ...] = ()  # what to put before a command to run it there; () is here
    python: str = "python3"  # the interpreter there
    numbers: tuple["Number", ...] = ()  # what else is known, each with its source

    def rate(
        self,
        kind: Kind,
        precision: Precision,
        engine: str = "",
        threads: int = 1,
        on: Place = "cpu",
    ) -> Rate | None:
        """Return one rate, None when it is not known.

        Args:
            kind: What work.
            precision: In what numbers.
            engine: Of which runtime; "" takes the fastest of any. The catalogue knows of none, so
                its rates are for all.
            threads: How many callers at once.
            on: Of which part of the device.
        """
        asked = (kind, precision, threads, on)
        found = [
            rate
            for rate in self.rates
            if (rate.kind, rate.precision, rate.threads, rate.on) == asked
            and (not engine or rate.engine in ("", engine))
        ]
        return max(found, key=lambda rate: rate.value, default=None)

    @property
    def digest(self) -> str:
        """A digest of everything in it; goes with what was decided from it."""
        return digest_json(encode(self))

    def facts(self) -> dict[str, Any]:
        """Return it as plain data without the rates, as a device's `facts` are."""
        left_out = ("rates", "skipped", "numbers", "source")
        known = {k: v for k, v in asdict(self).items() if k not in left_out and v is not None}
        return {**known, "known_from": self.source, "digest": self.digest[:16]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """One number of the catalogue, and how far it can be trusted."""

    name: str  # with its unit: memory_gb_per_s, watts_full
    value: float
    status: Status
    source: str


def profile_path(home: Path, name: str) -> Path | None:
    """Return the file of a probed device, None when there is none; a path is no name."""
    if not NAME_PATTERN.fullmatch(name) or ".." in name:
        return None
    path = home / FOLDER / f"{name}.toml"
    return path if path.is_file() else None


def write_profile(home: Path, profile: Profile) -> Path:
    """Sign a profile with the home's key and write it to `targets/NAME.toml`.

    Raises:
        Problem: G303 or G304 when the disk is full or may not be written to.
    """
    folder = home / FOLDER
    io.make_dirs_durable(folder)
    signer = Signer(home)
    text = toml(
        _said(profile),
        comment="What `genba targets probe` measured; signed, so edit nothing here.",
        signature={"public_key": signer.public_key, "signature": signer.sign(_message(profile))},
    )
    path = folder / f"{profile.name}.toml"
    io.write_durable(path, text.encode())
    return path


def read_profile(path: Path, home: Path | None) -> Profile:
    """Read a measured profile and check its signature.

    Args:
        path: The TOML file.
        home: Whose key must have signed it; any valid signature will do when None.

    Raises:
        Problem: G616 when it is damaged, was altered, or was signed by another home; G614 when it
            is dated in the future.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        signature = data.pop("signature")
        profile = decode(Profile, data)
        signed = (str(signature["public_key"]), str(signature["signature"]))
    except (OSError, ValueError, KeyError, TypeError, Problem) as error:
        why = error.what if isinstance(error, Problem) else str(error)
        raise _altered(path, f"It cannot be read: {why}") from error
    if not _is_valid(profile, *signed):
        raise _altered(path, "Its content is not what was signed.")
    if profile.name != path.stem:
        raise _altered(path, f"It is the profile of {profile.name}.")
    if home is not None and signed[0] != Signer(home).public_key:
        raise _altered(path, f"It was signed by another home, with the key {signed[0][:16]}….")
    _refuse_future(path, profile)
    return profile


def _refuse_future(path: Path, profile: Profile) -> None:
    """A profile is dated by the clock of this factory, so it cannot be from the future."""
    try:
        dated = datetime.fromisoformat(profile.dated)
        ahead = (dated - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError) as error:
        raise _altered(path, f"{profile.dated!r} is no time.") from error
    if ahead > _MOST_AHEAD_S:
        raise Problem(
            "G614",
            f"The profile of the target {path.stem} is dated in the future: {profile.dated}.",
            where=str(path),
            why="The clock of this machine was wrong when it was probed, or is wrong now.",
            tries=["date", f"genba targets probe {path.stem}", "genba explain G614"],
        )


def with_meter(profile: Profile, reading: MeterReading) -> Profile:
    """Return the profile with a reading of a power meter in it."""
    return replace(profile, meter=reading)


def _said(value: Any) -> Any:
    """Return plain data without what is as it is by default: it reads back the same."""
    if isinstance(value, tuple):
        return [_said(each) for each in value]
    if not is_dataclass(value) or isinstance(value, type):
        return encode(value)
    told = {f.name: getattr(value, f.name) for f in fields(value) if _differs(value, f)}
    return {name: _said(each) for name, each in told.items() if each is not None}


def _differs(value: Any, known: Field[Any]) -> bool:
    usual = known.default if known.default_factory is MISSING else known.default_factory()
    return usual is MISSING or getattr(value, known.name) != usual


def _message(profile: Profile) -> bytes:
    return canonical_json([_FORMAT, encode(profile)])


def _is_valid(profile: Profile, public_key: str, signature: str) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), _message(profile))
    except (InvalidSignature, ValueError):
        return False
    return True


def _altered(path: Path, why: str) -> Problem:
    return Problem(
        "G616",
        f"The profile of the target {path.stem} is not accepted.",
        where=str(path),
        why=why,
        tries=[f"genba targets probe {path.stem}", "genba explain G616"],
    )
