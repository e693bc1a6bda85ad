"""Who holds a lease, and whether that process is provably gone.

A lease alone makes the next process wait until it expires. On the same machine the holder can be
looked up instead, so a stage that was killed is taken over at once.
"""

import os
import secrets
from functools import cache
from pathlib import Path
from typing import Final

_NOT_LINUX: Final = "elsewhere"
_living: Final[set[str]] = set()  # owners of this process that have not retired


def new_owner() -> str:
    """Return a name for one piece of work of this process: machine, process, start, chance."""
    pid = os.getpid()
    owner = f"{_machine()}/{pid}/{_started(pid)}/{secrets.token_hex(4)}"
    _living.add(owner)
    return owner


def retire(owner: str) -> None:
    """Say that an owner of this process holds nothing any more, whatever its leases say.

    Example:
        >>> owner = new_owner()
        >>> retire(owner)
        >>> is_gone(owner)
        True
    """
    _living.discard(owner)


def is_gone(owner: str) -> bool:
    """Say whether an owner is certainly no longer running; False when that cannot be known.

    Example:
        >>> is_gone(new_owner()), is_gone("another-machine/1/2/3")
        (False, False)
    """
    parts = owner.split("/")
    if len(parts) != 4 or parts[0] != _machine() or parts[0] == _NOT_LINUX:
        return False
    if not parts[1].isdigit() or _started(int(parts[1])) != parts[2]:
        return True
    return int(parts[1]) == os.getpid() and owner not in _living


@cache
def _machine() -> str:
    """Name this boot of this machine and this container's view of its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        return f"{boot}-{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"
    except OSError:
        return _NOT_LINUX


def _started(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; "" when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
