"""Content digests: the same content always has the same name."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

DIGEST_LENGTH: Final = 64


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(paths: Iterable[Path], root: Path) -> str:
    """Return one digest over the contents and relative names of several files."""
    return digest_json([[str(p.relative_to(root)), digest_file(p)] for p in sorted(paths)])


def is_digest(text: str) -> bool:
    """Say whether text is a sha256 in lower-case hexadecimal; nothing else may name a blob."""
    return len(text) == DIGEST_LENGTH and all(c in "0123456789abcdef" for c in text)
