"""What this machine is: processor, cores and memory that may be used, instructions, load."""

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from genba.core.digest import digest_json

# Instruction sets that decide which precision pays: the rest does not change a choice.
_TELLING: Final = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
    "bf16",
    "i8mm",
)
_MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Facts of a machine; cores and memory are what this process may use, not what is built in."""

    processor: str
    architecture: str
    cores: float
    memory_mib: int
    instructions: tuple[str, ...]
    system: str

    @property
    def whole_cores(self) -> int:
        """The number of threads worth starting."""
        return max(1, int(self.cores))


def probe(root: Path = Path("/")) -> Machine:
    """Read the facts of this machine, container limits included.

    Args:
        root: Where `/proc` and `/sys` are; tests give their own.
    """
    info = _fields(_read(root / "proc/cpuinfo"))
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return Machine(
        processor=info.get("model name") or info.get("Model") or platform.machine() or "unknown",
        architecture=platform.machine(),
        cores=_cores(root),
        memory_mib=_memory_mib(root),
        instructions=tuple(name for name in _TELLING if name in flags),
        system=f"{platform.system()} {platform.release()}",
    )


def load_average() -> float:
    """Return how many processes wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


@cache
def fingerprint() -> str:
    """Return a name for the kind of machine this is; measurements hold for it and no other."""
    machine = probe()
    return digest_json(
        [machine.processor, machine.architecture, machine.cores, list(machine.instructions)]
    )[:16]


def _cores(root: Path) -> float:
    allowed = float(len(os.sched_getaffinity(0)))
    for path in _groups(root, "cpu"):
        quota, _, period = _read(path / "cpu.max").partition(" ")
        if not quota:
            quota = _read(path / "cpu.cfs_quota_us")
            period = _read(path / "cpu.cfs_period_us")
        if quota.strip().isdigit() and period.strip().isdigit():
            allowed = min(allowed, int(quota) / int(period))
    return round(allowed, 2)


def _memory_mib(root: Path) -> int:
    total = _fields(_read(root / "proc/meminfo")).get("MemTotal", "0 kB")
    allowed = int(total.split()[0]) << 10
    for path in _groups(root, "memory"):
        limit = (_read(path / "memory.max") or _read(path / "memory.limit_in_bytes")).strip()
        if limit.isdigit():
            allowed = min(allowed, int(limit))
    return allowed // _MIB


def _groups(root: Path, controller: str) -> list[Path]:
    """Return the control groups this process is in, innermost first, for both cgroup versions."""
    mount, found = root / "sys/fs/cgroup", []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        base = mount / controller if names else mount
        inner = base / path.lstrip("/")
        found += [p for p in (inner, *inner.parents) if p == base or base in p.parents]
    return found


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
