"""What the agent of a device knows, and what may happen to it: frozen values only."""

from dataclasses import dataclass
from typing import Literal

from genba.edge.agent.rules import Plan, Tally

Slot = Literal["a", "b"]
Phase = Literal[
    "downloaded", "verified", "tested", "shadow", "confirmed", "canary", "active", "previous"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A release that the factory has for this device."""

    release: int
    digest: str  # sha256 of its list of files
    size_bytes: int = 0
    fetched: bool = False  # every byte is here, checked, and not in a slot yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Install:
    """A release in a slot."""

    release: int
    digest: str
    slot: Slot
    phase: Phase
    since_ms: int
    package: str = ""  # id; known once it is verified, and so are root and plan
    root: str = ""  # sha256 of all its content, as it is signed
    plan: Plan = Plan()
    confirmed_by: str = ""
    settled: bool = False  # in service, and past its watch


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A release that this device does not take again by itself."""

    release: int
    reason: str
    time_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Everything the agent must not forget."""

    format: int = 1
    line: str
    active: Install | None = None
    previous: Install | None = None
    candidate: Install | None = None
    offer: Offer | None = None
    refused: tuple[Refused, ...] = ()
    starts: int = 0  # of what answers, since its last healthy answer

    def in_slot(self, slot: Slot) -> Install | None:
        """Return what a slot holds; None for one that is free."""
        held = (self.active, self.candidate, self.previous)
        return next((i for i in held if i is not None and i.slot == slot), None)

    def refusal(self, release: int) -> Refused | None:
        """Return why a release is not taken."""
        return next((r for r in reversed(self.refused) if r.release == release), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Offered:
    """The factory says which release this device should run."""

    offer: Offer


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """Every byte of the offer is on the disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """The offer is in a slot."""

    slot: Slot


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """Signatures and digests of the candidate hold."""

    package: str
    root: str
    plan: Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Proven:
    """The candidate answers here as it did where it was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The candidate, or the offer, is of no use."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirmed:
    """A person agrees that a release may answer."""

    release: int
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A person, or the factory, wants a release off this device."""

    release: int
    by: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What the releases did since they took their roles."""

    candidate: Tally = Tally()
    active: Tally = Tally()


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """Whatever answers was started; a crash before a healthy answer leaves this count behind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Healthy:
    """It has answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgiven:
    """A person lets a release be tried again that this device had refused."""

    release: int


Event = (
    Offered | Fetched | Filled | Verified | Proven | Failed | Confirmed | Rejected | Observed
    | Started | Healthy | Forgiven
)  # fmt: skip
