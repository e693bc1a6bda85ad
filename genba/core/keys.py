"""Keys: who may ask a server for what, as a fold over the ledger's `key.…` events.

A key is shown once, when it is made: ``gk_<id>_<secret>``. The ledger keeps its SHA-256, which is
enough for a secret of 256 random bits: there is nothing to guess, so nothing slow is needed.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from genba.core.values import Event

ADDED: Final = "key.added"
REVOKED: Final = "key.revoked"
USED: Final = "key.used"  # at most once a day for a key
KINDS: Final = (ADDED, REVOKED, USED)

#: What a key may allow, and what that is.
SCOPES: Final = {
    "infer": "ask for predictions",
    "read": "see lines, counts and metrics",
    "feedback": "say what was true",
    "deploy": "load, unload and change what answers",
    "admin": "everything",
    "device": "pull releases and send telemetry, as a device",
}
_TOKEN: Final = re.compile(rb"gk_([0-9a-hjkmnp-tv-z]{8})_[A-Za-z0-9_-]{43}")
_ID_BYTES: Final = 5
_SECRET_BYTES: Final = 32
_TO_ID: Final = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghjkmnpqrstvwxyz"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What a key allows; the key itself is not here."""

    id: str
    name: str
    digest: str  # SHA-256 of the key, hexadecimal
    scopes: frozenset[str]
    lines: frozenset[str] = frozenset()  # none named: every line
    access: frozenset[str] = frozenset()  # tags of documents that an assistant may answer from
    expires_ms: int | None = None  # ms since 1970 UTC
    rate: float | None = None  # requests per second
    concurrent: int | None = None  # requests at the same time
    by: str = ""  # who made it
    added_ms: int = 0
    revoked_ms: int | None = None
    revoked_by: str = ""
    used_ms: int | None = None  # the first time on the last day it was used

    def state(self, now_ms: int) -> str:
        """Return "valid", "revoked" or "expired".

        Example:
            >>> key = Key(id="1", name="a", digest="", scopes=frozenset(), expires_ms=10)
            >>> key.state(9), key.state(10)
            ('valid', 'expired')
        """
        if self.revoked_ms is not None:
            return "revoked"
        return "expired" if self.expires_ms is not None and now_ms >= self.expires_ms else "valid"


def new_token() -> tuple[str, str]:
    """Return the id and the whole of a new key: 256 random bits behind its id.

    Example:
        >>> id, token = new_token()
        >>> token_id(token.encode()) == id, len(token)
        (True, 55)
    """
    random = base64.b32encode(secrets.token_bytes(_ID_BYTES)).translate(_TO_ID).decode()
    return random, f"gk_{random}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def token_id(token: bytes) -> str | None:
    """Return the id inside a key; None for what is no key of this form, of whatever length."""
    found = _TOKEN.fullmatch(token)
    return found[1].decode() if found else None


def token_digest(token: bytes) -> str:
    """Return what the ledger keeps of a key."""
    return hashlib.sha256(token).hexdigest()


def fold(events: Iterable[Event], known: Mapping[str, Key] | None = None) -> dict[str, Key]:
    """Return every key there ever was, by id, oldest first.

    An event that cannot be read makes no key: what is not understood allows nothing.

    Args:
        events: Of `KINDS`, oldest first; subject = id of the key.
        known: What earlier events made.
    """
    keys = dict(known or {})
    for event in events:
        before = keys.get(event.subject)
        if event.kind == ADDED:
            made = None if before else _added(event)
            if made is not None:
                keys[event.subject] = made
        elif before is None:
            continue
        elif event.kind == USED:
            keys[event.subject] = replace(before, used_ms=event.time_ms)
        elif event.kind == REVOKED and before.revoked_ms is None:
            by = str(event.body.get("by", ""))
            keys[event.subject] = replace(before, revoked_ms=event.time_ms, revoked_by=by)
    return keys


def _added(event: Event) -> Key | None:
    body: Mapping[str, Any] = event.body
    try:
        expires, rate, concurrent = (body[n] for n in ("expires_ms", "rate", "concurrent"))
        return Key(
            id=event.subject,
            name=str(body["name"]),
            digest=str(body["digest"]),
            scopes=frozenset(map(str, body["scopes"])),
            lines=frozenset(map(str, body["lines"])),
            access=frozenset(map(str, body.get("access", ()))),
            expires_ms=None if expires is None else int(expires),
            rate=None if rate is None else float(rate),
            concurrent=None if concurrent is None else int(concurrent),
            by=str(body["by"]),
            added_ms=event.time_ms,
        )
    except (KeyError, TypeError, ValueError):
        return None
