"""`genba keys`: who may ask the server for what."""

import getpass
import time
from dataclasses import dataclass
from typing import Any, Final, Literal

from cyclopts import Parameter
from rich.console import RenderableType

from genba.core.keys import Key
from genba.core.problem import Problem
from genba.store.home import Store
from genba.store.keys import Grant, add_key, all_keys, revoke_key
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import moment
from genba.ui.cli.lookup import open_home
from genba.ui.cli.options import DEFAULT, Options


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class What:
    """What a new key allows."""

    scope: tuple[str, ...] = ()
    """infer, read, feedback, deploy or admin; several times for several (admin is all of them)."""

    line: tuple[str, ...] = ()
    """Only for this line; several times for several (default: every line)."""

    access: tuple[str, ...] = ()
    """Tag of documents that an assistant may answer from; several times for several."""

    days: float | None = None
    """Until it expires (default: never)."""

    rate: str = ""
    """Requests per second that it may send, such as 10 or 10/s (default: no limit)."""

    concurrent: int | None = None
    """Requests that may be open at the same time (default: no limit)."""


NOTHING: Final = What()


def keys(
    do: Literal["list", "add", "revoke"] = "list",
    which: str = "",
    /,
    *,
    what: What = NOTHING,
    comment: str = "",
    me: str = "",
    options: Options = DEFAULT,
) -> Answer:
    """Say who may ask the server, and for what.

    `genba keys add NAME --scope infer` prints a key, once; only its digest is kept. `genba keys
    revoke ID` ends it, on every running server within a second. From the first key on the server
    asks everybody for one.

    Args:
        do: list, add or revoke.
        which: For add a name, for people; for revoke the id of a key.
        what: What a new key allows.
        comment: Why it is revoked, for the ledger.
        me: Who decides (default: your login name).
        options: Common options.
    """
    by = me or getpass.getuser()
    with open_home(options) as store:
        if do == "list":
            return _listed(store)
        if not which:
            raise _nameless(do)
        if do == "add":
            return _added(store, which, what, by)
        return _revoked(store, which, by, comment)


def _added(store: Store, name: str, what: What, by: str) -> Answer:
    grant = Grant(
        scopes=what.scope,
        lines=what.line,
        access=what.access,
        days=what.days,
        rate=_rate(what.rate),
        concurrent=what.concurrent,
    )
    key, token = add_key(store.ledger, name, grant, by=by, now_ms=_now_ms())
    return Answer(
        data={"key": token, **_plain(key)},
        blocks=[
            heading(f"Key {key.id} for {name}", mark="yes"),
            facts(
                [
                    ("key", token),
                    ("", "It is not shown again; the ledger keeps its digest only."),
                    (
                        "send it",
                        "as GENBA_KEY from the commands, as Authorization: Bearer elsewhere",
                    ),
                    ("allows", _allows(key)),
                    ("expires", moment(key.expires_ms) if key.expires_ms else "never"),
                ]
            ),
        ],
        next=("genba keys list", f"genba keys revoke {key.id}"),
    )


def _revoked(store: Store, id: str, by: str, comment: str) -> Answer:
    key = revoke_key(store.ledger, id, by=by, reason=comment)
    return Answer(
        data=_plain(key),
        blocks=[
            heading(f"Key {key.id} of {key.name} is revoked", mark="yes"),
            facts(
                [
                    ("by", f"{key.revoked_by}, {moment(key.revoked_ms or 0)}"),
                    ("in force", "within a second where a server runs"),
                ]
            ),
        ],
        next=("genba keys list", f"genba keys add {key.name} --scope infer"),
    )


def _listed(store: Store) -> Answer:
    all_ = list(all_keys(store.ledger).values())
    now_ms = _now_ms()
    rows = [
        [
            key.id,
            key.name,
            _allows(key),
            key.state(now_ms),
            moment(key.expires_ms) if key.expires_ms else "never",
            moment(key.used_ms)[:10] if key.used_ms else "not yet",
            f"{key.by}, {moment(key.added_ms)[:10]}",
        ]
        for key in all_
    ]
    head = ["id", "name", "allows", "state", "expires", "last used", "made"]
    blocks: list[RenderableType] = [heading("Keys of the server")]
    nothing = "There is none: on this machine everybody may ask, from elsewhere nobody."
    blocks.append(table(head, rows, whole=("id",)) if rows else facts([("", nothing)]))
    valid = [key for key in all_ if key.state(now_ms) == "valid"]
    return Answer(
        data={"keys": [_plain(key) for key in all_]},
        blocks=blocks,
        next=(
            "genba keys add NAME --scope infer",
            *(f"genba keys revoke {key.id}" for key in valid[:1]),
        ),
    )


def _allows(key: Key) -> str:
    parts = [", ".join(sorted(key.scopes))]
    if key.lines:
        parts.append(f"for {', '.join(sorted(key.lines))}")
    if key.access:
        parts.append(f"documents of {', '.join(sorted(key.access))}")
    if key.rate is not None:
        parts.append(f"{key.rate:g}/s")
    if key.concurrent is not None:
        parts.append(f"{key.concurrent} at a time")
    return "; ".join(parts)


def _plain(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(_now_ms()),
        "scopes": sorted(key.scopes),
        "lines": sorted(key.lines),
        "access": sorted(key.access),
        "expires_ms": key.expires_ms,
        "rate": key.rate,
        "concurrent": key.concurrent,
        "added_ms": key.added_ms,
        "by": key.by,
        "revoked_ms": key.revoked_ms,
        "used_ms": key.used_ms,
    }


def _rate(text: str) -> float | None:
    if not text:
        return None
    number = text.removesuffix("/s")
    try:
        return float(number)
    except ValueError:
        raise Problem(
            "G110",
            f"{text!r} is not a number of requests per second.",
            where="--rate",
            tries=["genba keys add NAME --scope infer --rate 10/s"],
        ) from None


def _nameless(do: str) -> Problem:
    return Problem(
        "G110",
        f"genba keys {do} needs {'a name' if do == 'add' else 'the id of a key'}.",
        where=f"genba keys {do}",
        tries=["genba keys list", "genba keys add NAME --scope infer"],
    )


def _now_ms() -> int:
    return round(time.time() * 1_000)
