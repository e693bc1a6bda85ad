"""Which package answers what, folded from deployment events; the server and the loop share it.

There is exactly one way to change production: append a `deploy` event. What production is, is
whatever these events fold to, so it can be replayed, audited and simulated.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from genba.core.values import Event

Action = Literal["deploy", "canary", "shadow", "promote", "roll_back", "withdraw"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A package in a role, and since when."""

    package: str
    share: float  # of the traffic that it answers; a shadow answers none
    since_seq: int
    since_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """What a line has in production. Never two stable packages, by construction."""

    stable: Placed | None = None
    canary: Placed | None = None
    shadow: Placed | None = None
    previous: str | None = None  # the package a rollback returns to
    condemned: frozenset[str] = frozenset()  # rolled back or withdrawn; not offered again

    @property
    def packages(self) -> tuple[str, ...]:
        """Every package that must be loaded, stable first."""
        placed = (self.stable, self.canary, self.shadow)
        return tuple(dict.fromkeys(p.package for p in placed if p))


def fold(events: Iterable[Event], start: Rollout | None = None) -> Rollout:
    """Fold a line's `deploy` events, oldest first, into what is in production.

    The body of a `deploy` event has `action`, `package`, and for a canary `share`:

    - deploy: the package becomes stable at once (the first model of a line);
    - canary, shadow: it gets a share of the traffic, or sees all of it without answering;
    - promote: the canary (or shadow) becomes stable; the old stable is kept as `previous`;
    - roll_back: `package` is taken out; if it was stable, `previous` is stable again;
    - withdraw: a canary or shadow is taken out without blame on the stable one.

    Example:
        >>> def event(seq, action, package, **more):
        ...     body = {"action": action, "package": package, **more}
        ...     return Event(seq=seq, time_ms=seq, kind="deploy", line="l", subject=package,
        ...                  body=body, previous="", digest="")
        >>> r = fold([event(1, "deploy", "a"), event(2, "canary", "b", share=0.1)])
        >>> r.stable.package, r.canary.package, r.canary.share
        ('a', 'b', 0.1)
        >>> r = fold([event(3, "promote", "b"), event(4, "roll_back", "b")], r)
        >>> r.stable.package, r.canary, sorted(r.condemned)
        ('a', None, ['b'])
    """
    rollout = start or Rollout()
    for event in events:
        if event.kind == "deploy":
            rollout = _apply(rollout, event)
    return rollout


def _apply(now: Rollout, event: Event) -> Rollout:
    package, action = str(event.body["package"]), str(event.body["action"])
    share = float(event.body.get("share", 0.0))
    placed = Placed(package=package, share=share, since_seq=event.seq, since_ms=event.time_ms)
    if action == "canary":
        return replace(now, canary=placed)
    if action == "shadow":
        return replace(now, shadow=placed)
    if action in ("deploy", "promote"):
        return _make_stable(now, replace(placed, share=1.0))
    return _take_out(now, event, package)


def _make_stable(now: Rollout, placed: Placed) -> Rollout:
    if now.stable and now.stable.package == placed.package:
        return now
    return Rollout(
        stable=placed,
        canary=_unless(now.canary, placed.package),
        shadow=_unless(now.shadow, placed.package),
        previous=now.stable.package if now.stable else None,
        condemned=now.condemned,
    )


def _take_out(now: Rollout, event: Event, package: str) -> Rollout:
    stable, previous = now.stable, now.previous
    if stable and stable.package == package:
        back = previous if previous not in now.condemned else None
        stable = (
            Placed(package=back, share=1.0, since_seq=event.seq, since_ms=event.time_ms)
            if back
            else None
        )
        previous = None
    here = stable.package if stable else package  # what came back is no challenger any more
    return Rollout(
        stable=stable,
        canary=_unless(_unless(now.canary, package), here),
        shadow=_unless(_unless(now.shadow, package), here),
        previous=previous,
        condemned=now.condemned | {package},
    )


def _unless(placed: Placed | None, package: str) -> Placed | None:
    return None if placed and placed.package == package else placed
