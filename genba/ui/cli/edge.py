"""`genba edge`: releases for devices, from the factory's side."""

import getpass
import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from genba.core import io
from genba.core.codec import decode
from genba.core.problem import Problem
from genba.edge.agent.rules import Plan
from genba.edge.memory import Memory
from genba.edge.release import Release, open_release
from genba.edge.trust import Trust
from genba.runs.progress import ConsoleProgress
from genba.stages import edge_fleet
from genba.stages.edge_export import Order, export_edge
from genba.stages.edge_publish import Published, Publishing, publish
from genba.store.home import Store
from genba.store.keys import all_keys
from genba.store.oms import home_key, read_key
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.edge_devices import device_report
from genba.ui.cli.figures import seconds, size
from genba.ui.cli.lookup import known_line, open_home
from genba.ui.cli.options import DEFAULT, Options

Do = Literal["publish", "enrol", "devices", "confirm", "reject", "withdraw", "revoke", "rotate"]
_SECRET: Final = 0o600


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A command as it was typed."""

    which: str
    by: str
    how: "How"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """What depends on what is done."""

    source: Annotated[Path | None, Parameter(name="--from")] = None
    """publish: what genba export edge wrote (default: export the line now)."""

    keys: Path | None = None
    """publish, rotate: folder of the offline keys (default: edge/offline in the home)."""

    new_keys: Path | None = None
    """rotate: folder of the keys that devices shall trust from now on; made if empty."""

    key: Path | None = None
    """publish, enrol: the key that signs releases (default: the home's)."""

    target: str | None = None
    """publish: the device it is made for (default: the line's own target)."""

    device: tuple[str, ...] = ()
    """publish: only for this device; several times for several (default: all of the line)."""

    rule: tuple[str, ...] = ()
    """publish: how it is tried, such as shadow_answers=500 or confirm=never; repeatable."""

    line: str = ""
    """enrol: the line that the device runs; withdraw: whose release it is."""

    url: str = ""
    """enrol: where the device reaches this factory, such as https://factory:8080."""

    certificate: Path | None = None
    """enrol: PEM of who vouches for the factory's TLS (default: the device's system knows)."""

    to: Path | None = None
    """enrol: the file that is brought to the device (default: DEVICE.enrolment.json)."""

    release: int | None = None
    """confirm, reject, withdraw: its number (default: the one on trial)."""

    because: str = ""
    """reject, withdraw: why, for the record."""


_PLAIN: Final = How()


def edge(
    do: Do = "devices",
    which: str = "",
    /,
    *,
    how: How = _PLAIN,
    me: str = "",
    options: Options = DEFAULT,
) -> Answer:
    """Publish releases to devices, and decide what runs where.

    `publish LINE` exports what is in service, signs it and tells the devices of the line to take
    it; they fetch it from `genba up`. `enrol DEVICE` makes the file that a device is started with.
    `confirm DEVICE` lets the release on trial answer there, `reject DEVICE` takes it off, and
    `withdraw LINE --release N` takes a release off every device. `revoke DEVICE` ends an enrolment,
    `rotate` puts other offline keys in the place of those that devices trust.

    Args:
        do: publish, enrol, devices, confirm, reject, withdraw, revoke or rotate.
        which: A line for publish and withdraw, else a device.
        how: What depends on what is done.
        me: Who decides (default: your login name).
        options: Common options.
    """
    asked = _Asked(which=which, by=me or getpass.getuser(), how=how)
    if not which and do not in ("devices", "rotate"):
        raise _nameless(do)
    with open_home(options) as store:
        if do == "devices":
            return device_report(store, which)
        return _COMMANDS[do](store, asked)


def _publish(store: Store, asked: _Asked) -> Answer:
    how = asked.how
    line = known_line(store, asked.which).name
    plan = _plan(how.rule)
    with TemporaryDirectory(prefix="genba-release-") as folder:
        release = _release(store, line, how, Path(folder) / "release")
        order = Publishing(release=release, plan=plan, keys=how.keys, devices=how.device)
        done = publish(store, order)
    return Answer(
        data={
            "line": line,
            "release": done.release,
            "package": release.package.id,
            "root": release.signed.root,
            "devices": list(how.device),
            "bytes": done.bytes,
            "new_bytes": done.new_bytes,
            "whole_files_bytes": done.whole_files_bytes,
            "pieces": done.pieces,
            "keys": str(done.keys),
            "keys_made": done.keys_made,
            "seconds": done.seconds,
        },
        blocks=[
            heading(f"Release {done.release} of {line} is published", mark="yes"),
            facts(_published(done, how, plan)),
        ],
        next=(
            f"genba edge enrol DEVICE --line {line} --url http://HOST:8080",
            "genba up",
            "genba edge devices",
        ),
    )


def _release(store: Store, line: str, how: How, folder: Path) -> Release:
    if how.source is None:
        progress = ConsoleProgress()
        try:
            order = Order(line=line, folder=folder, target=how.target, key=how.key)
            return export_edge(store, order, progress).release
        finally:
            progress.close()
    key = read_key(how.key) if how.key else home_key(store.path)
    trust = Trust(keys={key.fingerprint: key.private.public_key()})
    now_ms = time.time_ns() // 1_000_000
    return open_release(how.source, trust, Memory(None), now_ms, line=line)


def _published(done: Published, how: How, plan: Plan) -> list[tuple[str, Any]]:
    fetch = size(done.bytes)
    if done.new_bytes < done.bytes:
        whole = size(done.whole_files_bytes)
        fetch = (
            f"{size(done.new_bytes)} of {size(done.bytes)}, for who has the release before "
            f"({whole} if files were fetched whole)"
        )
    confirm = {"updates": "before it answers", "always": "always", "never": "nobody"}
    made = "  made just now; move it to a stick, and give --keys" if done.keys_made else ""
    return [
        ("devices", ", ".join(how.device) or "all of the line"),
        ("to fetch", fetch),
        ("trial", f"{plan.shadow_answers} answers in shadow, then {plan.canary_share:.0%} of "
         f"{plan.canary_answers} answers; confirmed by a person: {confirm[plan.confirm]}"),
        ("goes back", f"at {plan.starts} starts without an answer, {plan.failures:.1%} failures, "
         f"{plan.disagreement:.0%} other decisions, {plan.abstained:.0%} abstentions, "
         f"{plan.trips_per_hour:g} trips an hour"),
        ("keys", f"{done.keys}{made}"),
        ("took", seconds(done.seconds)),
    ]  # fmt: skip


def _plan(rules: tuple[str, ...]) -> Plan:
    """Read how a release is tried.

    Raises:
        Problem: G102 or G103 for a rule that there is not, or whose value is none.
    """
    given: dict[str, Any] = {}
    for rule in rules:
        name, _, value = rule.partition("=")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return decode(Plan, given, where="--rule")


def _enrol(store: Store, asked: _Asked) -> Answer:
    how = asked.how
    line = known_line(store, how.line).name if how.line else _only_line(store)
    key = (read_key(how.key).public_pem,) if how.key else ()
    certificate = how.certificate.read_text(encoding="utf-8") if how.certificate else ""
    order = edge_fleet.Enrolling(
        device=asked.which, line=line, url=how.url, release_keys=key, certificate=certificate
    )
    now_ms = time.time_ns() // 1_000_000
    given = edge_fleet.enrol(store, order, by=asked.by, now_ms=now_ms)
    path = how.to or Path(f"{asked.which}.enrolment.json")
    text = json.dumps(edge_fleet.enrolment_text(given), indent=1, ensure_ascii=False)
    io.write_durable(path.absolute(), f"{text}\n".encode(), mode=_SECRET)
    return Answer(
        data={"device": given.device, "line": line, "file": str(path), "url": how.url},
        blocks=[
            heading(f"{given.device} is enrolled for {line}", mark="yes"),
            facts(
                [
                    ("file", f"{path}  holds its key: bring it there, then remove it"),
                    ("factory", how.url or "none given: the device is updated from folders"),
                    *_first_key(store),
                ]
            ),
        ],
        next=(f"genba-edge agent --enrol {path}", "genba edge devices"),
    )


def _first_key(store: Store) -> list[tuple[str, str]]:
    """Say what changes for everybody else when the first key of a home is made."""
    if len(all_keys(store.ledger)) > 1:
        return []
    return [("note", "with this first key the server asks everybody for one: genba keys add")]


def _only_line(store: Store) -> str:
    lines = {event.line for event in store.ledger.events(kinds=("edge.published",))}
    if len(lines) == 1:
        return lines.pop()
    raise Problem(
        "G110",
        "Which line shall the device run?",
        where="genba edge enrol",
        why=f"Published: {', '.join(sorted(lines))}." if lines else "Nothing was published yet.",
        tries=["genba edge enrol DEVICE --line LINE", "genba edge publish LINE"],
    )


def _confirm(store: Store, asked: _Asked) -> Answer:
    number = edge_fleet.confirm(store, asked.which, asked.how.release, by=asked.by)
    return _decided(f"Release {number} may answer on {asked.which}", asked, number)


def _reject(store: Store, asked: _Asked) -> Answer:
    how = asked.how
    number = edge_fleet.reject(store, asked.which, how.release, by=asked.by, reason=how.because)
    return _decided(f"Release {number} goes off {asked.which}", asked, number)


def _withdraw(store: Store, asked: _Asked) -> Answer:
    how, line = asked.how, known_line(store, asked.which).name
    if how.release is None:
        raise Problem(
            "G110",
            "Which release shall be withdrawn?",
            where="genba edge withdraw",
            tries=[f"genba edge withdraw {line} --release 3", "genba edge devices"],
        )
    edge_fleet.withdraw(store, line, how.release, by=asked.by, reason=how.because)
    return _decided(f"Release {how.release} of {line} goes off every device", asked, how.release)


def _revoke(store: Store, asked: _Asked) -> Answer:
    now_ms = time.time_ns() // 1_000_000
    edge_fleet.revoke(store, asked.which, by=asked.by, now_ms=now_ms)
    return _decided(f"{asked.which} is no device of this factory any more", asked, None)


def _rotate(store: Store, asked: _Asked) -> Answer:
    how = asked.how
    if how.new_keys is None:
        raise Problem(
            "G110",
            "Where are the new keys, or where shall they be?",
            where="genba edge rotate",
            tries=["genba edge rotate --keys OLD --new-keys NEW"],
        )
    edge_fleet.rotate(store, how.keys, how.new_keys, by=asked.by)
    return _decided(f"Devices will trust the keys in {how.new_keys}", asked, None)


def _decided(what: str, asked: _Asked, release: int | None) -> Answer:
    return Answer(
        data={"what": what, "release": release, "by": asked.by},
        blocks=[
            heading(what, mark="yes"),
            facts([("by", asked.by), ("in force", "when the device asks next")]),
        ],
        next=("genba edge devices",),
    )


def _nameless(do: str) -> Problem:
    wanted = "a line" if do in ("publish", "withdraw") else "a device"
    return Problem(
        "G110",
        f"genba edge {do} needs {wanted}.",
        where=f"genba edge {do}",
        tries=["genba edge devices", "genba edge --help"],
    )


_COMMANDS: Final = {
    "publish": _publish,
    "enrol": _enrol,
    "confirm": _confirm,
    "reject": _reject,
    "withdraw": _withdraw,
    "revoke": _revoke,
    "rotate": _rotate,
}
