"""Which code makes a result: Genba's own source, the commit it lies on, Python, the libraries."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import genba
from genba.runs.keys import code_digest

#: The libraries whose arithmetic, formats or algorithms a result depends on.
_LIBRARIES: Final = (
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "polars",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "scipy",
)
_HEXADECIMAL: Final = frozenset("0123456789abcdef")
_REF: Final = "ref: "


@cache
def software() -> dict[str, Any]:
    """Return what runs in this process, as plain data; found out once.

    The digest is of the source files themselves, so it also tells apart what was never committed.
    The revision is the commit the tree lies on, None where there is no repository.

    Example:
        >>> sorted(software())
        ['genba', 'libraries', 'python', 'revision', 'source']
    """
    return {
        "genba": genba.__version__,
        "source": code_digest("genba"),
        "revision": revision(Path(genba.__file__).parents[1]),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
    }


def revision(root: Path) -> str | None:
    """Return the commit that is checked out in a folder, read from git's files.

    Folders above are not searched: an installed copy may lie inside a repository of something else.

    Args:
        root: The folder that holds `.git`, which is a file in worktrees and submodules.

    Example:
        >>> revision(Path("/nowhere")) is None
        True
    """
    git = root / ".git"
    pointer = _line(git)
    if pointer:
        git = root / pointer.removeprefix("gitdir: ")
    shared = _line(git / "commondir")  # a worktree has a HEAD of its own, and no branches
    head = _line(git / "HEAD")
    if head.startswith(_REF):
        head = _branch(git / shared, head.removeprefix(_REF))
    return head if head and set(head) <= _HEXADECIMAL else None


def _branch(git: Path, name: str) -> str:
    """Return the commit of a branch: from its own file, or from the list of all that were packed.

    Args:
        git: The folder with the branches.
        name: For instance refs/heads/main.
    """
    loose = _line(git / name)
    if loose:
        return loose
    for line in _text(git / "packed-refs").splitlines():
        commit, _, branch = line.partition(" ")
        if branch == name:
            return commit
    return ""


def _line(path: Path) -> str:
    return _text(path).partition("\n")[0].strip()


def _text(path: Path) -> str:
    """Return a file's text, "" when it is not there or not readable."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
