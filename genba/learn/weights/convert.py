"""A foreign weights file becomes safetensors in a guarded process of its own.

Torch files are pickles, which run what is written in them when they are loaded. They are never
loaded: `disassemble.py` takes them apart, in a child without this package, without site packages
and without the environment of this process, that may use little memory and time.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from genba.core import io
from genba.core.digest import digest_file
from genba.core.problem import Problem
from genba.learn.weights import disassemble

_TIMEOUT_S: Final = 60.0
_PIECE: Final = 1 << 20


def convert(source: Path, place: Path, *, timeout_s: float = _TIMEOUT_S) -> str:
    """Write the tensors of a torch file as safetensors; nothing is left behind when that fails.

    Args:
        source: The torch file.
        place: Where the result goes; replaced only by a whole one.
        timeout_s: Seconds after which the process is ended.

    Returns:
        The sha256 of the result.

    Raises:
        Problem: G910 when the file is not a plain table of tensors, G911 when taking it apart
            broke a limit, G303 when the disk is full.
    """
    io.make_dirs_durable(place.parent)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=place.parent) as scratch:
        made = Path(scratch) / "made.safetensors"
        _run(source, made, timeout_s)
        with io.new_file(place.parent) as (temporary, target), made.open("rb") as file:
            while piece := file.read(_PIECE):
                io.disk().write(target, piece)
        io.replace_durable(temporary, place)
    return digest_file(place)


def _run(source: Path, made: Path, timeout_s: float) -> None:
    script = Path(disassemble.__file__)
    command = [sys.executable, "-I", "-S", str(script), str(source.absolute()), str(made)]
    try:
        child = subprocess.run(  # noqa: S603  # our own script; the paths are arguments of it
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=made.parent,
            env={},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _broke(source, f"it took more than {timeout_s:g} seconds") from error
    said = child.stderr.decode(errors="replace").strip()
    if child.returncode == disassemble.REFUSED:
        raise Problem(
            "G910",
            f"{source.name} is not a plain table of tensors.",
            where=str(source),
            why=f"{said} It was taken apart, not loaded, and nothing of it was kept.",
            tries=[f"rm -f {source}", "run again", "genba explain G910"],
        )
    if child.returncode:
        reason = said.splitlines()[-1][:200] if said else "it said nothing"
        raise _broke(source, f"the process ended with {child.returncode}: {reason}")


def _broke(source: Path, why: str) -> Problem:
    return Problem(
        "G911",
        f"{source.name} could not be turned into safetensors within its limits.",
        where=str(source),
        why=f"{why[:1].upper()}{why[1:]}. Nothing of it was kept.",
        tries=["run again", f"sha256sum {source}", "genba explain G911"],
    )
