"""Content digests: the same content always has the same name."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

DIGEST_LENGTH: Final = 64
_PIECE: Final = 1 << 18  # bytes read at a time


def canonical_json(value: Any) -> bytes:
    """Encode plain data so that equal values give equal bytes (sorted keys, no NaN).

    Raises:
        ValueError: If the value holds NaN or infinity, which JSON cannot carry.

    Example:
        >>> canonical_json({"b": 1, "a": [1.5, None]})
        b'{"a":[1.5,null],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the sha256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def digest_tree(paths: Iterable[Path], root: Path) -> str:
    """Return one digest over the contents and relative names of several files."""
    names = {p.relative_to(root).as_posix(): p for p in paths}
    return digest_json([[name, digest_file(names[name])] for name in sorted(names)])


def is_digest(text: str) -> bool:
    """Say whether text is a sha256 in lower-case hexadecimal; nothing else may name a blob."""
    return len(text) == DIGEST_LENGTH and all(c in "0123456789abcdef" for c in text)
