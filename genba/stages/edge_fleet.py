"""The devices of a factory, and what people decide about releases on them.

A decision is written into the plan, which the factory signs with the key that is at hand, and into
the ledger. A device acts on it when it asks next.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from genba.core.codec import encode, nearest
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.edge.agent.enrolment import Enrolment
from genba.edge.agent.orders import list_path
from genba.serve.edge.devices import Device, Devices
from genba.stages.edge_publish import offline_keys
from genba.store.home import Store
from genba.store.keys import Grant, add_key, all_keys, revoke_key
from genba.store.oms import home_key

ENROLLED: Final = "edge.enrolled"
DECIDED: Final = "edge.decided"
SCOPES: Final = ("device",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrolling:
    """A device to be enrolled."""

    device: str
    line: str
    url: str = ""
    release_keys: tuple[bytes, ...] = ()  # PEM, beside that of the home
    certificate: str = ""  # PEM


def enrol(store: Store, order: Enrolling, *, by: str, now_ms: int) -> Enrolment:
    """Make what a device needs to be run from here; a device of that name is enrolled anew.

    Args:
        store: Of the factory.
        order: Which device, for what.
        by: Who does it.
        now_ms: ms since 1970 UTC.

    Raises:
        Problem: G688 when nothing was published yet, G104 for a name that is none.
    """
    root = _repository(store).root()
    devices = Devices(store.path)
    before = devices.get(order.device)
    if before is not None and before.revoked_ms is None:
        _end_key(store, before.key, by, "enrolled anew")
    grant = Grant(scopes=SCOPES, lines=(order.line,))
    key, token = add_key(store.ledger, order.device, grant, by=by, now_ms=now_ms)
    devices.save(Device(name=order.device, line=order.line, key=key.id, enrolled_ms=now_ms))
    store.ledger.append(
        ENROLLED, {"key": key.id, "by": by}, line=order.line, subject=order.device, now_ms=now_ms
    )
    pems = (home_key(store.path).public_pem, *order.release_keys)
    return Enrolment(
        device=order.device,
        line=order.line,
        url=order.url,
        key=token,
        root=root.decode(),
        release_keys=tuple(dict.fromkeys(pem.decode() for pem in pems)),
        certificate=order.certificate,
    )


def confirm(store: Store, name: str, release: int | None, *, by: str) -> int:
    """Agree that a release may answer on a device; return which one.

    Args:
        store: Of the factory.
        name: Of the device.
        release: Its number; the one that is on trial there when None.
        by: Who agrees.

    Raises:
        Problem: G688 for a device that there is not, or where nothing is on trial.
    """
    device, number = _on_trial(store, name, release)
    _decide(store, device, lambda mine: mine.setdefault("confirmed", {}).update({str(number): by}))
    _record(store, device, {"decision": "confirmed", "release": number, "by": by})
    return number


def reject(store: Store, name: str, release: int | None, *, by: str, reason: str = "") -> int:
    """Take a release off a device: off its trial, or out of service; return which one.

    Raises:
        Problem: As `confirm`.
    """
    device, number = _on_trial(store, name, release, active=True)
    said = {"by": by, "reason": reason}

    def change(mine: dict[str, Any]) -> None:
        mine.setdefault("rejected", {})[str(number)] = said
        mine.get("confirmed", {}).pop(str(number), None)

    _decide(store, device, change)
    _record(store, device, {"decision": "rejected", "release": number, **said})
    return number


def withdraw(store: Store, line: str, release: int, *, by: str, reason: str = "") -> None:
    """Take a release off every device of a line; those that use it go back to the one before.

    Raises:
        Problem: G688 when it was never published.
    """
    repository = _repository(store)
    path = list_path(line, release)
    if path not in repository.targets():
        known = [p for p in repository.targets() if p.startswith(f"{line}/")]
        raise _unknown(f"Release {release} of {line} was never published.", known)

    def change(plan: Any) -> None:
        mine = plan.lines.setdefault(line, {})
        mine.setdefault("withdrawn", {})[str(release)] = reason or f"withdrawn by {by}"
        if mine.get("release") == release:
            mine.pop("release")
        for device in plan.devices.values():
            if device.get("line") == line and device.get("release") == release:
                device.pop("release")

    repository.change_plan(change)
    body = {"decision": "withdrawn", "release": release, "by": by, "reason": reason}
    store.ledger.append(DECIDED, body, line=line)


def revoke(store: Store, name: str, *, by: str, now_ms: int) -> Device:
    """End the enrolment of a device: nothing is taken from it, nothing given to it.

    Raises:
        Problem: G688 for a device that there is not.
    """
    device = _device(store, name)
    _end_key(store, device.key, by, f"device {name} revoked")
    ended = replace(device, revoked_ms=now_ms)
    Devices(store.path).save(ended)
    _record(store, device, {"decision": "revoked", "by": by})
    return ended


def rotate(store: Store, old: Path | None, new: Path, *, by: str) -> None:
    """Put other offline keys in the place of those that devices trust now.

    Args:
        store: Of the factory.
        old: Folder of the keys of before.
        new: Folder of the new ones; both sign the new root, so that devices follow.
        by: Who does it.

    Raises:
        Problem: G679 when a key cannot be used; G688 when nothing was published yet.
    """
    repository = _repository(store)
    repository.root()
    before, _, _ = offline_keys(store, old)
    after, _, _ = offline_keys(store, new, new=True)
    repository.rotate(before, after)
    store.ledger.append(DECIDED, {"decision": "rotated", "by": by})


def devices_of(store: Store) -> list[Device]:
    """Return every device, by name."""
    return Devices(store.path).all()


def _on_trial(
    store: Store, name: str, release: int | None, *, active: bool = False
) -> tuple[Device, int]:
    device = _device(store, name)
    roles = ("candidate", "active") if active else ("candidate",)
    held = [device.report[role] for role in roles if device.report.get(role)]
    numbers = [int(one["release"]) for one in held]
    if release is not None:
        return device, release
    if not numbers:
        raise _unknown(f"Nothing is on trial on {name}, as far as it has said.", ())
    return device, numbers[0]


def _device(store: Store, name: str) -> Device:
    found = Devices(store.path).get(name)
    if found is not None:
        return found
    names = [device.name for device in devices_of(store)]
    near = nearest(name, names) if names else None
    told = f"; did you mean {near}?" if near else "."
    raise _unknown(f"There is no device {name!r}{told}", names)


def _unknown(what: str, known: Any) -> Problem:
    return Problem(
        "G688",
        what,
        why=f"There is: {', '.join(known)}." if known else "",
        tries=["genba edge devices", "genba explain G688"],
    )


def _decide(store: Store, device: Device, change: Callable[[dict[str, Any]], object]) -> None:
    def on_plan(plan: Any) -> None:
        change(plan.devices.setdefault(device.name, {"line": device.line}))

    _repository(store).change_plan(on_plan)


def _record(store: Store, device: Device, body: dict[str, Any]) -> None:
    store.ledger.append(DECIDED, body, line=device.line, subject=device.name)


def _end_key(store: Store, key: str, by: str, reason: str) -> None:
    known = all_keys(store.ledger).get(key)
    if known is not None and known.revoked_ms is None:
        revoke_key(store.ledger, key, by=by, reason=reason)


def enrolment_text(given: Enrolment) -> dict[str, Any]:
    """Return an enrolment as it is written for a device."""
    plain: dict[str, Any] = encode(given)
    return plain


def _repository(store: Store) -> Any:
    return resolve("update", "repository")(store.path)
