"""A package made of another one: the same model, with other things around it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from genba.core.values import GateResult, PackageFile, Verdict
from genba.edge.package import LoadedPackage, load
from genba.stages.package import record_package
from genba.store.home import Store


def opened(store: Store, package_id: str) -> LoadedPackage:
    """Return a package of the store, every byte of it verified.

    Raises:
        Problem: G302 or G604 when it is not whole.
    """
    return load(store.blobs.read(package_id), store.blobs.read, expect=package_id)


def draft(
    store: Store,
    package: LoadedPackage,
    files: Mapping[str, bytes | None],
    settings: Mapping[str, Any],
) -> LoadedPackage:
    """Return a package with other files and settings that is written nowhere yet.

    Args:
        store: Keeps the new files.
        package: What it is made of.
        files: By name; None takes one away.
        settings: Added to those of the manifest.
    """
    kept = {name: data for name, data in package.files.items() if name not in files}
    made = {**kept, **{name: data for name, data in files.items() if data is not None}}
    named = {
        name: package.manifest.files[name]
        if name in kept
        else PackageFile(digest=store.blobs.put(data), size=len(data))
        for name, data in made.items()
    }
    manifest = replace(
        package.manifest, files=named, settings={**package.manifest.settings, **settings}
    )
    return LoadedPackage(id="", manifest=manifest, files=made)


def repacked(
    store: Store, package: LoadedPackage, made: LoadedPackage, gates: tuple[GateResult, ...] = ()
) -> LoadedPackage:
    """Record and sign a draft; its lineage names the package it was made of.

    Args:
        store: Where it goes.
        package: What it was made of.
        made: From `draft`.
        gates: Besides those that the model has passed; one that is missed keeps the package out of
            service.
    """
    before = package.manifest.verdict
    verdict = Verdict(
        passed=before.passed and all(gate.passed for gate in gates), gates=(*before.gates, *gates)
    )
    manifest = replace(made.manifest, verdict=verdict)
    return record_package(store, manifest, of=[("package", package.id)])
