"""A home that holds what one line has in service and nothing else, to be carried elsewhere."""

from pathlib import Path
from typing import Any, Final

from genba.core import tuning
from genba.core.problem import Problem
from genba.core.rollout import Rollout, fold
from genba.core.values import Manifest
from genba.edge.package import load
from genba.store.home import Store
from genba.store.signatures import check_own, trust

_SIGNED: Final = "package.signed"


def in_service(store: Store, line: str) -> Rollout:
    """Return what a line has in service.

    Raises:
        Problem: G502 when it has nothing.
    """
    rollout = fold(store.ledger.events(line=line, kinds=("deploy",)))
    if rollout.stable is None:
        raise Problem(
            "G502",
            f"The line {line} has nothing in production.",
            where=line,
            tries=[f"genba run {line}", "genba status"],
        )
    return rollout


def export_home(store: Store, line: str, folder: Path) -> dict[str, Manifest]:
    """Write a home with the signed packages that a line has in service, in their roles.

    Neither rows nor predictions nor keys are in it. The new home trusts who signed the packages:
    it has a key of its own only once it runs.

    Args:
        store: The factory's home.
        line: Its name.
        folder: Where the new home goes; it must not exist.

    Returns:
        The manifest of every package by its id, the stable one first.

    Raises:
        Problem: G502 when nothing is in service, G605 for a package that this home has not
            signed, G302 or G604 when one is not whole.
    """
    rollout = in_service(store, line)
    manifests: dict[str, Manifest] = {}
    with Store.open(folder, url=f"sqlite:///{folder / 'ledger.db'}") as made:
        for package in rollout.packages:
            check_own(store, package)
            manifests[package] = _copy_package(store, made, package)
        for role in ("stable", "canary", "shadow"):
            placed = getattr(rollout, role)
            if placed is None:
                continue
            body: dict[str, Any] = {
                "action": "deploy" if role == "stable" else role,
                "package": placed.package,
            }
            if role == "canary":
                body["share"] = placed.share
            made.ledger.append("deploy", body, line=line, subject=placed.package)
        for event in store.ledger.events(line=line, kinds=(tuning.KIND,)):
            if event.subject in manifests:
                made.ledger.append(event.kind, dict(event.body), line=line, subject=event.subject)
    return manifests


def _copy_package(store: Store, made: Store, package: str) -> Manifest:
    loaded = load(store.blobs.read(package), store.blobs.read, expect=package)
    made.blobs.put(store.blobs.read(package))
    for data in loaded.files.values():
        made.blobs.put(data)
    body = store.ledger.get("package", package)
    line = loaded.manifest.line
    made.ledger.record("package", package, dict(body or {}), line=line)
    for event in store.ledger.events(line=line, kinds=(_SIGNED,)):
        if event.subject == package:
            made.ledger.append(_SIGNED, dict(event.body), line=line, subject=package)
            trust(made.path, str(event.body["public_key"]))
    return loaded.manifest
