"""The one way to change production: a guarded `deploy` event.

Whoever asks (a person, the controller, the first run of a line), the same rules hold: only a
package of this line that passed its gates and has never been taken out of service may answer.
"""

from typing import Any, Final

from genba.core.problem import Problem
from genba.core.rollout import Action, Rollout, fold
from genba.core.values import Event
from genba.store.home import Store
from genba.store.signatures import find_signature

#: The code of an action that does not fit what is in production, perhaps since a moment ago.
NOT_FITTING: Final = "G524"
_LEAVES: Final = ("roll_back", "withdraw")


def deploy(  # noqa: PLR0913  what an audit wants to know of a change; all but four are named
    store: Store,
    line: str,
    action: Action,
    package: str,
    *,
    share: float = 0.0,
    reason: str,
    by: str,
    key: str | None = None,
) -> Event:
    """Change what a line has in production.

    Args:
        store: Where the ledger is.
        line: Name of the line.
        action: What to do; see `genba.core.rollout.fold`.
        package: The package it is done with.
        share: Of the traffic, for a canary.
        reason: Why, with numbers; kept in the ledger.
        by: Who: a person or a part of Genba.
        key: Makes the change happen once, however often it is asked for.

    Returns:
        The event; for a key already used, the first one.

    Raises:
        Problem: G520 unknown package, G521 it missed a gate, G522 it was taken out before, G523
            it belongs to another line, G524 the action does not fit what is in production, G525
            there is nothing to roll back to, G526 a share outside 0 to 1, G527 its signature is
            not valid.
    """
    body: dict[str, Any] = {"action": action, "package": package, "reason": reason, "by": by}
    if action == "canary":
        if not 0.0 < share < 1.0:
            raise _share(line, share)
        body["share"] = share
    if key:
        body["key"] = key
    with store.transaction() as connection:  # nobody changes production between check and change
        store.database.lock(connection)
        before = store.ledger.events(line=line, kinds=("deploy",))
        done = next((e for e in before if key and e.body.get("key") == key), None)
        if done:
            return done
        if action not in _LEAVES:
            _admissible(store, line, package)
        _fits(fold(before), line, action, package)
        return store.ledger.append("deploy", body, line=line, subject=package, key=key)


def approve(
    store: Store, line: str, package: str, *, approved: bool = True, by: str, reason: str = ""
) -> Event:
    """Answer the controller's question whether a canary may become stable.

    Args:
        store: Where the ledger is.
        line: Name of the line.
        package: The canary, or a package that waits to become one.
        approved: Yes or no; the newest answer counts.
        by: Who answers.
        reason: Why.

    Raises:
        Problem: G520, G521, G523 or G527 when the package could never be deployed.
    """
    _admissible(store, line, package)
    body = {"package": package, "approved": approved, "by": by, "reason": reason}
    return store.ledger.append("approval", body, line=line, subject=package)


def _admissible(store: Store, line: str, package: str) -> None:
    manifest = store.ledger.get("package", package)
    if manifest is None:
        raise Problem(
            "G520",
            f"There is no package {package[:12]} in this store.",
            where=line,
            tries=[f"genba status {line}", f"genba run {line}"],
        )
    if manifest.get("line") != line:
        raise Problem(
            "G523",
            f"The package {package[:12]} belongs to the line {manifest.get('line')}, not {line}.",
            where=line,
            tries=[f"genba status {line}"],
        )
    verdict = manifest.get("verdict") or {}
    if verdict.get("passed") is not True:
        missed = [str(g.get("reason")) for g in verdict.get("gates", ()) if not g.get("passed")]
        raise Problem(
            "G521",
            f"The package {package[:12]} did not pass its gates, so it cannot be deployed.",
            where=line,
            why=" ".join(missed),
            tries=[f"genba trace {package[:12]}", f"genba run {line}"],
        )
    _check_signature(store, line, package)


def _check_signature(store: Store, line: str, package: str) -> None:
    """Refuse a package that was recorded as signed when the signature is not one of it."""
    try:
        find_signature(store, package)
    except Problem as problem:
        raise Problem(
            "G527",
            f"The signature of the package {package[:12]} is not valid, so it cannot be deployed.",
            where=line,
            why=problem.why,
            tries=["genba doctor --verify", f"genba run {line}", "genba explain G527"],
        ) from problem


def _fits(now: Rollout, line: str, action: Action, package: str) -> None:
    if action not in _LEAVES and package in now.condemned:
        raise Problem(
            "G522",
            f"The package {package[:12]} was taken out of service before and is not offered again.",
            where=line,
            tries=[f"genba run {line}", f"genba trace {package[:12]}"],
        )
    stable = now.stable.package if now.stable else None
    challengers = [p.package for p in (now.canary, now.shadow) if p]
    fits = {
        "deploy": stable in (None, package),  # every later package has to prove itself first
        "canary": stable is not None and package != stable,
        "shadow": stable is not None and package != stable,
        "promote": package in challengers,
        "roll_back": package in (stable, *challengers),
        "withdraw": package in challengers,
    }
    if not fits.get(action, False):
        raise Problem(
            NOT_FITTING,
            f"{action} does not fit: {package[:12]} is {_role(now, package)} of {line}.",
            where=line,
            why=f"Stable: {_short(stable)}; challengers: "
            f"{', '.join(map(_short, challengers)) or 'none'}.",
            tries=[f"genba status {line}"],
        )
    if action == "roll_back" and package == stable:
        _can_return(now, line, package)


def _can_return(now: Rollout, line: str, package: str) -> None:
    if now.previous is None or now.previous in now.condemned:
        raise Problem(
            "G525",
            f"There is no earlier package of {line} to return to from {package[:12]}.",
            where=line,
            why="Taking it out would leave the line without an answer.",
            tries=[f"genba run {line}", f"genba status {line}"],
        )


def _role(now: Rollout, package: str) -> str:
    roles = {"stable": now.stable, "canary": now.canary, "shadow": now.shadow}
    held = [name for name, placed in roles.items() if placed and placed.package == package]
    return " and ".join(held) or "not in service"


def _short(package: str | None) -> str:
    return package[:12] if package else "none"


def _share(line: str, share: float) -> Problem:
    return Problem(
        "G526",
        f"A canary's share must lie between 0 and 1, not {share:g}.",
        where=f"{line}: rollout.canary",
        tries=["canary = 0.1"],
    )
