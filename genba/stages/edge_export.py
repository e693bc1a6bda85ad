"""What a line has in service as a signed release for devices: one folder, made whole or not at all.

The folder is built beside its place, signed, opened as a device will open it, and renamed. Its
number comes from the ledger before anything is written, so that two releases never share one.
"""

import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from genba.core.codec import decode
from genba.core.io import make_dirs_durable, replace_durable, write_durable
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.values import Bill, Manifest, Measure
from genba.data.view import DatasetView
from genba.edge.interface import INTERFACE_FILE, encode_interface
from genba.edge.memory import Memory
from genba.edge.package import CARD_FILE, SAMPLE_FILE, LoadedPackage, load
from genba.edge.predict import golden_samples, open_engine
from genba.edge.release import (
    PACKAGE_FOLDER,
    SAFETY_FILE,
    STATEMENT_FILE,
    Release,
    Statement,
    encode_statement,
    open_release,
)
from genba.edge.trust import Trust
from genba.runs.progress import Progress, SilentProgress
from genba.stages.assurance import assure
from genba.stages.edge_bom import Materials, bill_of_materials
from genba.stages.edge_card import card_text
from genba.stages.edge_interface import derive
from genba.stages.edge_wheel import build_wheel, wheel_name
from genba.stages.export import in_service
from genba.stages.package import export_package
from genba.store.home import Store
from genba.store.oms import EdgeKey, home_key, read_key, sign_folder
from genba.store.signatures import check_own
from genba.targets.cost import bill
from genba.targets.devices import Target
from genba.targets.registry import open_target

RELEASED: Final = "edge.released"  # a number was given
SIGNED: Final = "edge.signed"  # and the release of that number is whole
BOM_FILE: Final = "bom.json"
CARD_TEXT_FILE: Final = "card.md"
RUNTIME_FOLDER: Final = "runtime"
_TEXT: Final = "text"  # a modality
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to be exported.

    Args:
        line: Its name.
        folder: Where the release goes.
        target: The device it is for; the line's own when None.
        key: Signs it; the home's when None.
        days: Devices refuse it after so many; never when None.
        force: Replace a release that is there.
    """

    line: str
    folder: Path
    target: str | None = None
    key: Path | None = None
    days: float | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A release that was written, opened as a device will open it."""

    release: Release
    key: EdgeKey
    sizes: Mapping[str, int]  # bytes of each part of the folder
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What the ledger knows about a package."""

    line: Line
    package: LoadedPackage
    card: dict[str, Any]
    view: DatasetView
    training: Bill | None


def export_edge(store: Store, order: Order, progress: Progress | None = None) -> Exported:
    """Write the package that a line has in service as a release for devices.

    Args:
        store: The factory's home.
        order: What, where to and for which device.
        progress: Where to report what is going on; silent when None.

    Raises:
        Problem: G502 when nothing is in service, G605 for a package that this home has not
            signed, G111 when the folder is there, G307 or G679 when the key cannot be used, G596
            when a cell of the fault matrix fails, G610 when the package has no recorded samples,
            G612 when there is no such target.
    """
    began = time.monotonic()
    told = progress or SilentProgress()
    _check_place(order)
    found = _find(store, order.line)
    key = read_key(order.key) if order.key else home_key(store.path)
    told.step("testing what happens when sensors fail")
    safety = _safety(store, found, told)
    stated = _state(store, order, found)
    part = order.folder.absolute().parent / f".{order.folder.name}.{secrets.token_hex(4)}.part"
    make_dirs_durable(part)
    try:
        told.step(f"writing release {stated.release}")
        _write(part, store, found, stated, safety, key)
        sign_folder(part, key)
        told.step("opening it as a device will")
        _opened(part, key).tested().engine.close()
        _place(part, order)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    release = _opened(order.folder, key)
    store.ledger.append(
        SIGNED,
        {
            "release": stated.release,
            "root": release.signed.root,
            "key": key.fingerprint,
            "target": stated.target,
        },
        line=stated.line,
        subject=stated.package,
    )
    seconds = time.monotonic() - began
    return Exported(release=release, key=key, sizes=_sizes(order.folder), seconds=seconds)


def _find(store: Store, name: str) -> _Found:
    package_id = str(getattr(in_service(store, name).stable, "package", ""))
    check_own(store, package_id)
    manifest = decode(Manifest, store.ledger.get("package", package_id))
    line = _line_of_run(store, manifest.run)
    if SAMPLE_FILE not in manifest.files or CARD_FILE not in manifest.files or line is None:
        raise Problem(
            "G610",
            f"The package {package_id[:12]}… was not made by a run of {name}.",
            where=package_id,
            why="It has no recorded samples, so no device could test it.",
            tries=[f"genba run {name}"],
        )
    return _Found(
        line=line,
        package=_load(store, package_id),
        card=json.loads(store.blobs.read(manifest.files[CARD_FILE].digest)),
        view=DatasetView.open(store, manifest.dataset, line),
        training=_training(store, manifest),
    )


def _load(store: Store, package_id: str) -> LoadedPackage:
    return load(store.blobs.read(package_id), store.blobs.read, expect=package_id)


def _training(store: Store, manifest: Manifest) -> Bill | None:
    """Return what the run that made the package cost; None where it did not end in it."""
    for event in store.ledger.events(line=manifest.line, kinds=("run.finished",)):
        if event.body.get("run") == manifest.run:
            return bill(float(event.body["seconds"]), float(event.body["cpu_seconds"]))
    return None


def _safety(store: Store, found: _Found, told: Progress) -> Mapping[str, Any] | None:
    """Return the safety manifest; None for texts, which have no sensor that could fail.

    What is accepted is a person's decision and may be newer than the model: the newest run of the
    line says it.

    Raises:
        Problem: G596 when a cell of the fault matrix fails.
    """
    if found.view.modality == _TEXT:
        return None
    newest = _line_of_run(store, str(store.ledger.find("run", line=found.line.name)[0].id))
    line = replace(found.line, safety=newest.safety if newest else found.line.safety)
    return assure(store, found.package.id, line, found.view, progress=told)


def _line_of_run(store: Store, run: str) -> Line | None:
    digest = (store.ledger.get("run", run) or {}).get("line_digest", "")
    plain = store.ledger.get("line", str(digest))
    return None if plain is None else decode(Line, plain)


def _state(store: Store, order: Order, found: _Found) -> Statement:
    """Return what is stated of the release, with a number that no other release has or gets."""
    manifest = found.package.manifest
    target = order.target or found.line.target.device
    device = open_target(target, store.path)
    measures = _measures(found, target, device)
    now_ms = time.time_ns() // 1_000_000
    limits = found.line.target.limits
    return Statement(
        line=manifest.line,
        package=found.package.id,
        release=_number(store, manifest.line, found.package.id, now_ms),
        made_ms=now_ms,
        expires_ms=None if order.days is None else now_ms + int(order.days * _DAY_MS),
        target=target,
        profile=device.profile.digest,
        standing="measured" if measures else "unverified",
        deadline_ms=limits.latency_ms_p99,
        engine=manifest.engine,
        measures=measures,
        runtime=wheel_name(),
    )


def _measures(found: _Found, target: str, device: Target) -> dict[str, Measure]:
    """Return what the package's engine was measured to take on a target; {} for a modelled one."""
    if not device.measurable:
        return {}
    if target == found.line.target.device:
        known = found.card["runtime"]["measures"]["value"]
        return {name: decode(Measure, body) for name, body in known.items()}
    engine = open_engine(found.package)
    try:
        return dict(device.measure(engine, golden_samples(found.package)[0]))
    finally:
        engine.close()


def _number(store: Store, line: str, package: str, now_ms: int) -> int:
    """Take the next number of a line; of several exports at once, each gets its own."""
    mine = secrets.token_hex(8)
    given = store.ledger.events(line=line, kinds=(RELEASED,))
    number = max((int(e.body["release"]) for e in given), default=0)
    while True:
        number += 1
        event = store.ledger.append(
            RELEASED,
            {"release": number, "made_ms": now_ms, "by": mine},
            line=line,
            subject=package,
            key=f"edge:{line}:{number}",
        )
        if event.body["by"] == mine:
            return number


def _write(
    part: Path,
    store: Store,
    found: _Found,
    stated: Statement,
    safety: Mapping[str, Any] | None,
    key: EdgeKey,
) -> None:
    export_package(store, stated.package, part / PACKAGE_FOLDER)
    sheet = found.view.sheet()
    interface = derive(found.line, found.package.manifest, stated.package, sheet)
    wheel = build_wheel()
    materials = Materials(
        package=found.package,
        statement=stated,
        card=found.card,
        wheel=wheel,
        engine_version=resolve("engine", stated.engine.name).version(),
        training=found.training,
    )
    files = {
        STATEMENT_FILE: encode_statement(stated),
        INTERFACE_FILE: encode_interface(interface),
        BOM_FILE: _json(bill_of_materials(materials)),
        CARD_TEXT_FILE: card_text(found.card, stated, interface, key.fingerprint).encode(),
        f"{RUNTIME_FOLDER}/{stated.runtime}": wheel,
    }
    if safety is not None:
        files[SAFETY_FILE] = _json(safety)
    make_dirs_durable(part / RUNTIME_FOLDER)
    for name, data in files.items():
        write_durable(part / name, data)


def _json(body: Any) -> bytes:
    return (json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _opened(folder: Path, key: EdgeKey) -> Release:
    """Open a release as a device that trusts its key and has had none before."""
    trust = Trust(keys={key.fingerprint: key.private.public_key()})
    return open_release(folder, trust, Memory(None), time.time_ns() // 1_000_000)


def _check_place(order: Order) -> None:
    """Refuse a place that is taken; only a release is ever replaced.

    Raises:
        Problem: G111 when something is there.
    """
    folder = order.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    is_release = (folder / STATEMENT_FILE).is_file()
    if order.force and is_release:
        return
    again = f"genba export edge {order.line} --to {folder} --force"
    raise Problem(
        "G111",
        f"{folder} is already there.",
        where=str(folder),
        why="" if is_release else "It is no release, so it is not replaced.",
        tries=[again] if is_release else [again.replace("--force", "").rstrip() + "-2"],
    )


def _place(part: Path, order: Order) -> None:
    """Give the release its name; one that was there before goes only then."""
    folder = order.folder.absolute()
    old = part.with_suffix(".old")
    if folder.exists():
        replace_durable(folder, old)
    replace_durable(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every entry of a folder, those of folders added up."""
    return {
        entry.name: sum(f.stat().st_size for f in (entry, *entry.rglob("*")) if f.is_file())
        for entry in sorted(folder.iterdir())
    }
