"""Keys in the ledger: made, revoked, looked up. The key itself is returned once and never kept."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from genba.core import keys
from genba.core.codec import nearest
from genba.core.ids import check_name
from genba.core.keys import Key
from genba.core.problem import Problem
from genba.store.chain import Draft
from genba.store.ledger import Ledger

_DAY_MS: Final = 86_400_000
_MOST_DAYS: Final = 3_650


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """What a new key shall allow."""

    scopes: tuple[str, ...]
    lines: tuple[str, ...] = ()  # none named: every line
    access: tuple[str, ...] = ()  # tags of documents that an assistant may answer from
    days: float | None = None  # until it expires
    rate: float | None = None  # requests per second
    concurrent: int | None = None  # requests at the same time


def add_key(ledger: Ledger, name: str, grant: Grant, *, by: str, now_ms: int) -> tuple[Key, str]:
    """Make a key.

    Args:
        ledger: Where it is recorded.
        name: Whose it is, for people: a name as lines have.
        grant: What it allows.
        by: Who makes it.
        now_ms: Time in ms since 1970 UTC, from which its days count.

    Returns:
        What is recorded, and the key itself: nobody can find it out again.

    Raises:
        Problem: G104 for a name that is none, G751 for a scope that there is not, or a limit that
            is no limit.
    """
    check_name(name, "key")
    _check(grant)
    id, token = keys.new_token()
    body: dict[str, Any] = {
        "name": name,
        "digest": keys.token_digest(token.encode()),
        "scopes": sorted(set(grant.scopes)),
        "lines": sorted({check_name(line, "line") for line in grant.lines}),
        "expires_ms": None if grant.days is None else now_ms + round(grant.days * _DAY_MS),
        "rate": grant.rate,
        "concurrent": grant.concurrent,
        "by": by,
    }
    if grant.access:
        body["access"] = sorted({check_name(tag, "tag") for tag in grant.access})
    event = ledger.append(keys.ADDED, body, subject=id, key=f"{keys.ADDED}:{id}", now_ms=now_ms)
    return keys.fold([event])[id], token


def revoke_key(ledger: Ledger, id: str, *, by: str, reason: str = "") -> Key:
    """Take a key out of service, for good. Servers follow within a second.

    Args:
        ledger: Where it is recorded.
        id: Of the key; it may be the whole key, as it was printed.
        by: Who does it.
        reason: Why, for the ledger.

    Raises:
        Problem: G752 when there is no such key.
    """
    known = all_keys(ledger)
    id = keys.token_id(id.encode()) or id.removeprefix("gk_")
    if id not in known:
        raise _unknown(id, known.values())
    body = {"by": by, "reason": reason}
    event = ledger.append(keys.REVOKED, body, subject=id, key=f"{keys.REVOKED}:{id}")
    return keys.fold([event], known)[id]


def all_keys(ledger: Ledger) -> dict[str, Key]:
    """Return every key there ever was, by id, oldest first."""
    return keys.fold(ledger.events(kinds=keys.KINDS))


def mark_used(ledger: Ledger, ids: Iterable[str], now_ms: int) -> None:
    """Record that keys were used; the ledger takes one such event per key and day."""
    day = now_ms // _DAY_MS
    ledger.append_all(
        Draft(
            kind=keys.USED,
            body={},
            subject=id,
            key=f"{keys.USED}:{id}:{day}",
            now_ms=now_ms,
        )
        for id in sorted(ids)
    )


def _check(grant: Grant) -> None:
    unknown = [scope for scope in grant.scopes if scope not in keys.SCOPES]
    if unknown or not grant.scopes:
        near = nearest(unknown[0], list(keys.SCOPES)) if unknown else "infer"
        what = f"There is no scope {unknown[0]!r}." if unknown else "A key needs a scope."
        raise _refused(what, f"--scope {near or 'infer'}")
    if grant.days is not None and not 0 < grant.days <= _MOST_DAYS:
        raise _refused(
            f"A key lasts up to {_MOST_DAYS} days, not {grant.days:g}.", "--scope infer --days 90"
        )
    if grant.rate is not None and not (math.isfinite(grant.rate) and grant.rate > 0):
        raise _refused(
            f"{grant.rate:g} requests per second is no limit.", "--scope infer --rate 10"
        )
    if grant.concurrent is not None and grant.concurrent < 1:
        raise _refused(
            f"{grant.concurrent} requests at a time is no limit.", "--scope infer --concurrent 4"
        )


def _refused(what: str, flag: str) -> Problem:
    described = "; ".join(f"{scope}: {text}" for scope, text in keys.SCOPES.items())
    return Problem(
        "G751",
        what,
        where="genba keys add",
        why=f"Scopes are {described}.",
        tries=[f"genba keys add NAME {flag}"],
    )


def _unknown(id: str, known: Iterable[Key]) -> Problem:
    valid = [f"{key.id} ({key.name})" for key in known if key.revoked_ms is None]
    return Problem(
        "G752",
        f"There is no key {id[:32]!r}.",
        where="genba keys revoke",
        why=f"There are: {', '.join(valid)}." if valid else "This home has no key in force.",
        tries=["genba keys list"],
    )
