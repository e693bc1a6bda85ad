"""What the releases did, from the process that answers to the one that decides.

The process that answers counts, and writes the counts down now and then, whole. What was counted
since the last time is lost with a crash, which only makes a trial longer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from genba.core.codec import decode, encode
from genba.core.digest import canonical_json
from genba.core.io import write_durable
from genba.core.problem import Problem
from genba.edge.agent.rules import Tally
from genba.edge.agent.values import Install, Observed, State

FILE: Final = "observed.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """One release in one role, since it took it."""

    release: int
    phase: str
    since_ms: int
    tally: Tally = Tally()

    def is_of(self, install: Install | None) -> bool:
        """Say whether it is the stretch that a release is in now."""
        if install is None:
            return False
        return (self.release, self.phase, self.since_ms) == (
            install.release,
            install.phase,
            install.since_ms,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """The file."""

    candidate: Stretch | None = None
    active: Stretch | None = None  # since it took its role
    beside: Stretch | None = None  # the release in service, since the candidate took its role


def write_counts(folder: Path, counts: Counts) -> None:
    """Write the counts down, whole."""
    write_durable(folder / FILE, canonical_json(encode(counts)))


def read_counts(folder: Path) -> Counts:
    """Return the counts; none where there are none, or none that can be read."""
    try:
        body: Any = json.loads((folder / FILE).read_bytes())
        return decode(Counts, body)
    except (OSError, ValueError, Problem):
        return Counts()


def observed(counts: Counts, state: State) -> Observed:
    """Return what the counts say about the releases in the roles that they have now."""
    candidate, active, beside = counts.candidate, counts.active, counts.beside
    if state.candidate is None:
        known = active is not None and active.is_of(state.active)
        return Observed(active=active.tally if active is not None and known else Tally())
    if candidate is None or not candidate.is_of(state.candidate):
        return Observed()
    return Observed(candidate=candidate.tally, active=beside.tally if beside else Tally())
