"""Assumed numbers with their date and source, read from TOML."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from genba.core.codec import decode
from genba.core.problem import Problem

HERE: Final = Path(__file__).parent

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumed:
    """A number nobody measured here: a value, a band, and where it is from."""

    value: float
    low: float
    high: float
    dated: str
    source: str


def read_table(kind: type[T], path: Path) -> T:
    """Read a TOML file into a dataclass; an unchanged file is read once.

    Raises:
        Problem: G606 when the file is missing or no TOML; G102 or G103 when a key is wrong.
    """
    try:
        data = _parse(path, path.stat().st_mtime_ns)
    except (OSError, ValueError) as error:
        raise Problem(
            "G606",
            f"The table {path} cannot be read.",
            where=str(path),
            why=str(error),
            tries=[f"cp {HERE / 'prices.toml'} {path}", "genba explain G606"],
        ) from error
    return decode(kind, data, where=path.name)


@lru_cache(maxsize=16)
def _parse(path: Path, changed_ns: int) -> Mapping[str, Any]:  # noqa: ARG001  # part of the key
    return tomllib.loads(path.read_text(encoding="utf-8"))
