"""What this machine is: processor, cores and memory that may be used, instructions, load."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from genba.core.digest import digest_json
from genba.edge.probe import machine


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
    facts = machine(root)
    return Machine(**{**facts, "instructions": tuple(facts["instructions"])})


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
