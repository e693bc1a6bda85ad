"""Stage keys: same code, same configuration, same inputs, same seed, same key."""

import importlib.util
import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from genba.core.digest import digest_json, digest_tree

_SOURCE: Final = (".py", ".toml")


def stage_key(
    name: str, *, uses: Iterable[str], config: Any, inputs: Mapping[str, Any], seed: int
) -> str:
    """Return the digest that stands for a result before it is computed.

    Example:
        >>> key = stage_key("train", uses=["genba.core"], config={}, inputs={}, seed=0)
        >>> key == stage_key("train", uses=["genba.core"], config={}, inputs={}, seed=1)
        False
    """
    return digest_json(
        {
            "stage": name,
            "code": {use: code_digest(use) for use in sorted(set(uses))},
            "config": config,
            "inputs": {name: digest_json(result) for name, result in inputs.items()},
            "seed": seed,
        }
    )


@cache
def code_digest(name: str) -> str:
    """Return the digest of a module's or package's source, or the version of a library.

    Source that is edited while the process runs is not seen: what runs is what was imported. Code
    without a file (typed at a prompt) gets a digest of its own in every process: never reused.

    Raises:
        ModuleNotFoundError: If there is neither a module nor a library of that name.
    """
    if "." not in name and name != "genba":  # whether it is imported yet must not matter
        with suppress(PackageNotFoundError):
            return f"{name}=={version(name)}"
    file, folders = _places(name)
    if folders:
        return digest_json([digest_tree(_sources(folder), folder) for folder in folders])
    if file is None or not file.is_file():
        return f"no source {secrets.token_hex(8)}"
    return digest_tree([file], file.parent)


def _places(name: str) -> tuple[Path | None, list[Path]]:
    """Return a module's file and, of a package, its folders."""
    module = sys.modules.get(name)
    if module is not None:
        file, folders = getattr(module, "__file__", None), getattr(module, "__path__", ())
    else:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"there is no module {name!r}", name=name)
        file, folders = spec.origin, spec.submodule_search_locations or ()
    return Path(file) if file else None, [Path(folder) for folder in folders]


def _sources(root: Path) -> list[Path]:
    found = ((folder, name) for folder, _, names in os.walk(root) for name in names)
    return [Path(folder, name) for folder, name in found if name.endswith(_SOURCE)]
