"""The pages of docs/errors, found in a checkout or inside the installed package."""

from functools import cache
from pathlib import Path

import genba


@cache
def folder(name: str) -> Path:
    """Return `docs/errors` or `lines`, wherever this installation keeps it.

    A wheel carries both inside `genba/ui`; a checkout has them beside the package.
    """
    package = Path(genba.__file__).parent
    packed = package / "ui" / name
    if packed.is_dir():
        return packed
    return package.parent / {"errors": "docs/errors", "lines": "lines"}[name]


def page(code: str) -> str | None:
    """Return the page of an error code, or None when there is no such code."""
    path = folder("errors") / f"{code}.md"
    known = path.name in {p.name for p in folder("errors").glob("G*.md")}
    return path.read_text(encoding="utf-8") if known else None


def titles() -> dict[str, str]:
    """Return every code with the sentence of its page."""
    found = {}
    for path in sorted(folder("errors").glob("G*.md")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.removeprefix("#").partition(":")[2].strip()
    return found
