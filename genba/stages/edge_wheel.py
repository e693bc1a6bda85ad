"""The runtime of a device as a wheel, built from the sources of this installation.

The wheel has what verifies, tests and answers, and nothing that trains or serves. The same sources
give the same bytes: entries are sorted, and their times and modes are fixed. Format: the binary
distribution format of packaging.python.org (PEP 427), metadata 2.4.
"""

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import genba
from genba.catalog import EDGE_EXTRAS, EDGE_LIBRARIES

NAME: Final = "genba_edge"
TAG: Final = "py3-none-any"
_PARTS: Final = ("core", "edge", "engines")  # layers, from the bottom
_FILES: Final = ("__init__.py", "catalog.py", "py.typed")
_KEPT: Final = (".py", ".toml", ".json")
_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can hold
_MODE: Final = 0o644 << 16
_WHEEL: Final = f"Wheel-Version: 1.0\nGenerator: genba\nRoot-Is-Purelib: true\nTag: {TAG}\n"
_COMMAND: Final = "[console_scripts]\ngenba-edge = genba.edge.cli.app:main\n"


def wheel_name() -> str:
    """Return the file name of the wheel.

    Example:
        >>> wheel_name().endswith("-py3-none-any.whl")
        True
    """
    return f"{NAME}-{genba.__version__}-{TAG}.whl"


def build_wheel() -> bytes:
    """Return the wheel of the runtime."""
    info = f"{NAME}-{genba.__version__}.dist-info"
    files = {
        **_sources(Path(genba.__file__).parent),
        f"{info}/METADATA": _metadata().encode(),
        f"{info}/WHEEL": _WHEEL.encode(),
        f"{info}/entry_points.txt": _COMMAND.encode(),
    }
    record = f"{info}/RECORD"
    rows = [f"{name},{_digest(data)},{len(data)}" for name, data in sorted(files.items())]
    files[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    return _archive(files, last=record)


def _sources(root: Path) -> dict[str, bytes]:
    paths = [root / name for name in _FILES]
    for part in _PARTS:
        paths += [p for p in (root / part).rglob("*") if p.suffix in _KEPT and p.is_file()]
    return {f"genba/{p.relative_to(root).as_posix()}": p.read_bytes() for p in paths}


def _metadata() -> str:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {NAME.replace('_', '-')}",
        f"Version: {genba.__version__}",
        "Summary: What ships to a device: verifies, tests and runs releases of a Genba factory.",
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.11",
        *(f"Requires-Dist: {library}" for library in EDGE_LIBRARIES),
    ]
    for extra, libraries in EDGE_EXTRAS.items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {library}; extra == '{extra}'" for library in libraries]
    return "\n".join([*lines, "", ""])


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


def _archive(files: Mapping[str, bytes], *, last: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in [*sorted(files.keys() - {last}), last]:
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = _MODE
            entry.create_system = 3  # Unix, wherever it is made
            archive.writestr(entry, files[name])
    return buffer.getvalue()
