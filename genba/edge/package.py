"""A package: a manifest and the files it names, verified byte by byte before anything runs.

The package id is the sha256 of the manifest's canonical JSON, and the manifest has the sha256 and
the size of every file. Whoever knows the id can therefore not be given anything else.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from genba.core.codec import decode, encode
from genba.core.digest import canonical_json, digest_bytes
from genba.core.ids import NAME_PATTERN
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.values import Manifest, PackageFile

FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "signature.json"
MODEL_FILE: Final = "model.onnx"
TALK_FILE: Final = "model.gguf"  # in place of a graph: a language model with its vocabulary
GGUF: Final = b"GGUF"  # how such a file begins
SAMPLE_FILE: Final = "sample.safetensors"
CARD_FILE: Final = "card.json"
CASES_FILE: Final = "cases.safetensors"  # known cases: what they look like, and which rows they are
_BESIDE: Final = frozenset({MANIFEST_FILE, SIGNATURE_FILE})  # in a folder, but not in the manifest
_UNKNOWN_ENTITY: Final = -1

Read = Callable[[str], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPackage:
    """A package whose every byte was verified."""

    id: str
    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def model(self) -> bytes:
        """The graph, or the language model."""
        return self.files[MODEL_FILE if MODEL_FILE in self.files else TALK_FILE]


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the one way a manifest is written: canonical JSON of its normalised values.

    Without classes the key is left out, as in packages from before there were any.
    """
    body = encode(decode(Manifest, encode(manifest)))
    return canonical_json({k: v for k, v in body.items() if k != "classes" or v})


def load(data: bytes, read: Read, *, expect: str | None = None) -> LoadedPackage:
    """Load a package and verify all of it.

    Args:
        data: The manifest as bytes.
        read: Returns the bytes of a file by its sha256, for instance `store.blobs.read`.
        expect: The package id that was asked for; anything else is refused.

    Raises:
        Problem: G603 for a format this version does not know, G604 when a byte differs, or a file
            is missing or has a name that is a path.
    """
    package_id = digest_bytes(data)
    if expect is not None and package_id != expect:
        raise _altered(f"The manifest is not that of package {expect[:12]}…", where=expect)
    manifest = _decode_manifest(data, package_id)
    files = {name: _verified(name, file, read, package_id) for name, file in manifest.files.items()}
    return LoadedPackage(id=package_id, manifest=manifest, files=files)


def load_directory(folder: Path, *, expect: str | None = None) -> LoadedPackage:
    """Load a package from a folder that holds `manifest.json` and exactly the files it names.

    Raises:
        Problem: G604 when a file is missing, altered, a link or not named by the manifest; and as
            for `load`.
    """
    present = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    strange = sorted(n for n, p in present.items() if p.is_symlink() or not p.is_file())
    if MANIFEST_FILE not in present or strange:
        what = f"{strange[0]} is no plain file" if strange else f"there is no {MANIFEST_FILE}"
        raise _altered(f"{folder} is not a package: {what}.", where=str(folder))
    data = present[MANIFEST_FILE].read_bytes()
    manifest = _decode_manifest(data, str(folder))
    extra = sorted(present.keys() - manifest.files.keys() - _BESIDE)
    missing = sorted(manifest.files.keys() - present.keys())
    if extra or missing:
        what = f"{extra[0]} does not belong to it" if extra else f"{missing[0]} is missing"
        raise _altered(f"The package in {folder} was altered: {what}.", where=str(folder))
    by_digest = {file.digest: present[name] for name, file in manifest.files.items()}
    return load(data, lambda digest: by_digest[digest].read_bytes(), expect=expect)


def encode_entities(
    values: Sequence[Any] | Array, entities: Sequence[str] | Mapping[str, int]
) -> Array:
    """Turn entity names into the numbers a graph takes.

    Args:
        values: Names as text or bytes; numbers pass through unchanged.
        entities: The manifest's entities, or for many calls a mapping made once from them.

    Returns:
        int64 [N]; -1 for a name the model has not seen, which it answers with its pooled limits.

    Example:
        >>> encode_entities([b"R80711", "R80790", "new"], ("R80711", "R80790")).tolist()
        [0, 1, -1]
    """
    table = (
        entities
        if isinstance(entities, Mapping)
        else {name: index for index, name in enumerate(entities)}
    )
    given = np.asarray(values)
    if given.dtype.kind in "iu":
        return given.astype(np.int64, copy=False)
    names = (v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in given.tolist())
    found = (table.get(name, _UNKNOWN_ENTITY) for name in names)
    return np.fromiter(found, dtype=np.int64, count=len(given))


def _decode_manifest(data: bytes, where: str) -> Manifest:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise _altered("The manifest is not JSON.", where=where, why=str(error)) from error
    version = body.get("format") if isinstance(body, dict) else None
    if version != FORMAT:
        raise Problem(
            "G603",
            f"The package has format {version!r}; this version reads format {FORMAT}.",
            where=where,
            tries=["pip install --upgrade genba", "genba explain G603"],
        )
    try:
        manifest = decode(Manifest, body)
    except Problem as problem:
        raise _altered("The manifest is damaged.", where=where, why=problem.what) from problem
    if encode_manifest(manifest) != data:
        raise _altered("The manifest is not written as Genba writes it.", where=where)
    _check_names(manifest, where)
    return manifest


def _check_names(manifest: Manifest, where: str) -> None:
    for name in manifest.files:
        if not NAME_PATTERN.fullmatch(name) or ".." in name or name in _BESIDE:
            raise _altered(f"The manifest names a file {name!r}.", where=where)
    if len({MODEL_FILE, TALK_FILE} & manifest.files.keys()) != 1:
        raise _altered(f"The manifest names no {MODEL_FILE} and no {TALK_FILE}.", where=where)


def _verified(name: str, file: PackageFile, read: Read, where: str) -> bytes:
    data = read(file.digest)
    if len(data) != file.size or digest_bytes(data) != file.digest:
        raise _altered(f"The file {name} of the package was altered.", where=where)
    return data


def _altered(what: str, *, where: str, why: str = "") -> Problem:
    return Problem(
        "G604",
        what,
        where=where,
        why=why or "Every byte of a package is covered by its id; nothing of it was loaded.",
        tries=["fetch the package again", "genba trace PACKAGE", "genba explain G604"],
    )
