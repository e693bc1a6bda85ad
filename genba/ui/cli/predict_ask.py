"""Asking for predictions: the server, or the package itself on this machine."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors
from genba.core.values import Manifest
from genba.edge.images import decode
from genba.edge.package import load
from genba.edge.predict import Predictor
from genba.serve.client import Client, environment_ca, environment_key
from genba.stages.tune import values
from genba.store.home import Store
from genba.ui.cli.predict_input import Part

_BAD_IMAGE: Final = "G23"  # codes of images that cannot be used begin with it
SENT_OTHERWISE: Final = ("entity", "time", "parameter")


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """Predictions of a part."""

    part: Part
    outputs: Tensors
    ids: tuple[str, ...]  # empty for a package that was run here
    package: str
    role: str


Ask = Callable[[Part], Made]


@contextmanager
def server(url: str, line: str, manifest: Manifest, outputs: tuple[str, ...]) -> Iterator[Ask]:
    """Give what asks a server.

    Args:
        url: Where it is.
        line: Which line to ask.
        manifest: Of a package of the line; its signature holds for every package that answers.
        outputs: Names of what is wanted.
    """
    sent = [t.name for t in manifest.signature.inputs if t.role not in (*SENT_OTHERWISE, "given")]
    with Client(url, key=environment_key(), ca=environment_ca()) as client:

        def ask(part: Part) -> Made:
            answer = client.infer(
                line,
                {name: part.tensors[name] for name in sent},
                entities=part.entities if any(part.entities) else None,
                times=part.times,
                outputs=outputs,
            )
            return Made(
                part=part,
                outputs=answer.outputs,
                ids=answer.predictions,
                package=answer.package,
                role=answer.role,
            )

        yield ask


@contextmanager
def here(store: Store, package: str, manifest: Manifest, outputs: tuple[str, ...]) -> Iterator[Ask]:
    """Give what runs a package on this machine, with its parameters as they hold in service."""
    predictor = Predictor(load(store.blobs.read(package), store.blobs.read, expect=package))
    parameters = values(store, package, manifest)

    def ask(part: Part) -> Made:
        made = predictor.predict(complete(part, manifest, parameters))
        return Made(
            part=part,
            outputs={name: made[name] for name in outputs},
            ids=(),
            package=package,
            role="local",
        )

    try:
        yield ask
    finally:
        predictor.engine.close()


def complete(part: Part, manifest: Manifest, parameters: Mapping[str, float]) -> dict[str, Array]:
    """Return the tensors that a graph needs: images decoded, parameters as they hold."""
    tensors = dict(part.tensors)
    for tensor in manifest.signature.inputs:
        if tensor.role == "image":
            tensors[tensor.name] = np.stack(
                [decode(data, tensor.shape[1]) for data in tensors[tensor.name]]
            )
        elif tensor.role == "parameter":
            value = parameters[tensor.name]
            tensors[tensor.name] = np.full(len(part), value, dtype=np.float32)
    return tensors


def is_bad_image(problem: Problem) -> bool:
    """Say whether a problem is about an image that cannot be used, and not about who was asked."""
    return problem.code.startswith(_BAD_IMAGE)


def answers(asked: Iterable[Part], ask: Ask, rejected: Counter[str]) -> Iterator[Made]:
    """Yield the answers to every part; an image that cannot be used is counted and left out.

    Raises:
        Problem: What whoever is asked says, except about one of several images.
    """
    first: Problem | None = None
    answered = False
    for part in asked:
        try:
            yield ask(part)
            answered = True
        except Problem as problem:
            if not is_bad_image(problem):
                raise
            first = first or problem
            for one in _each(part):
                try:
                    yield ask(one)
                    answered = True
                except Problem as alone:
                    if not is_bad_image(alone):
                        raise
                    rejected[alone.what] += 1
    if first is not None and not answered:
        raise first


def _each(part: Part) -> Iterator[Part]:
    for index in range(len(part)):
        yield part.some(slice(index, index + 1))
