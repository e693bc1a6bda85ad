"""Episodes from images of the test set, with faults put into them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array, Predict, View
from genba.core.task import Task
from genba.core.values import Manifest
from genba.edge.images import inspect
from genba.edge.safety.plan import SafetyPlan
from genba.stages.assurance_episodes import EPOCH_MS, Episode, beat_ms
from genba.stages.assurance_images import PIXEL_FAULTS, Read, cut, half_width, read
from genba.stages.assurance_rows import Outputs, answered, tensor_of

WARM: Final = 10  # images before a fault that stays: as many as one may be late
_BEFORE: Final = 2  # images before a fault of one image
LASTS: Final = 12  # of a fault that stays, such as a frame that is repeated
_SEED: Final = 20_240_702


class Pictures:
    """Makes the episodes of a line of images.

    Args:
        task: Decodes images.
        predict: The package.
        manifest: Of the package.
        plan: Knows how soon an image is too old.
    """

    def __init__(self, task: Task, predict: Predict, manifest: Manifest, plan: SafetyPlan) -> None:
        self.task, self.predict, self.manifest = task, predict, manifest
        image = tensor_of(manifest.signature, "image")
        assert image is not None
        self.beat_ms = beat_ms(plan)
        self.tensor, self.size = image.name, int(image.shape[1])
        self.files: list[bytes] = []
        self.reads: list[Read] = []
        self.others: dict[str, Array] = {}  # tensors besides the image, one row
        self.clean: Outputs = {}

    def choose(self, view: View, count: int) -> None:
        """Choose images spread over the test set, of all its classes as they come."""
        total = view.count("test")
        wanted = np.unique(np.linspace(0, max(total - 1, 0), min(count, total)).astype(np.int64))
        start = 0
        for chunk in view.chunks("test"):
            rows = len(chunk["row"])
            for at in wanted[(wanted >= start) & (wanted < start + rows)] - start:
                self.files.append(bytes(chunk["image"][at]))
            if not self.others and rows:
                first = self.task.samples({n: c[:1] for n, c in chunk.items()}, _settings(self))
                self.others = {n: t for n, t in first.tensors.items() if n != self.tensor}
            start += rows
        self.reads = [read(data, self.size) for data in self.files]
        self.clean = self._answers([one.pixels for one in self.reads])

    def pixels(self, name: str) -> Iterator[Episode]:
        """Yield one episode for each image: two clean ones, then the one with the fault."""
        change: Callable[..., Any] = PIXEL_FAULTS[name]
        made = []
        for i, one in enumerate(self.reads):
            made.append(change(one.pixels, np.random.default_rng(_SEED + i)))
        outputs = self._answers(made)
        for i, one in enumerate(self.reads):
            yield self._single(i, Read(pixels=made[i], size=one.size), _row(outputs, i))

    def files_cut(self) -> Iterator[Episode]:
        """Yield episodes in which a file ends too soon."""
        for i, data in enumerate(self.files):
            found = read(cut(data, np.random.default_rng(_SEED + i)), self.size)
            answer = _row(self.clean, i)
            if found.pixels is not None:  # the decoder made do with what there was
                answer = self._answers([found.pixels])
            yield self._single(i, found, answer)

    def files_narrow(self) -> Iterator[Episode]:
        """Yield episodes in which a file has another width than all before."""
        found = [read(half_width(data), self.size) for data in self.files]
        outputs = self._answers([one.pixels for one in found])
        for i, one in enumerate(found):
            yield self._single(i, one, _row(outputs, i))

    def stale(self) -> Iterator[Episode]:
        """Yield episodes in which the newest frame comes again and again, freshly stamped."""
        for episode in self.plain():
            shown = np.minimum(np.arange(WARM + LASTS), WARM - 1)
            yield replace(
                episode,
                tensors={name: t[shown] for name, t in episode.tensors.items()},
                outputs={name: o[shown] for name, o in episode.outputs.items()},
            )

    def plain(self) -> Iterator[Episode]:
        """Yield stretches of images without a fault, one for each image as the first."""
        count = len(self.reads)
        for i in range(count):
            at = (np.arange(WARM + LASTS) + i) % count
            yield Episode(
                tensors=self._tensors([self.reads[j].pixels for j in at]),
                outputs={name: o[at] for name, o in self.clean.items()},
                clean={name: o[at] for name, o in self.clean.items()},
                time_ms=self._times(len(at)),
                now_ms=self._times(len(at)),
                entity="",
                onset=WARM,
                sizes=[self.reads[j].size for j in at],
            )

    def power_loss(self) -> Iterator[Episode]:
        """Yield episodes in which the envelope begins anew; an image needs no history."""
        for episode in self.plain():
            yield replace(episode, restart=True)

    def _single(self, i: int, bad: Read, answer: Outputs) -> Episode:
        """Return two clean images and then a bad one in place of image i."""
        count = len(self.reads)
        at = [(i - _BEFORE) % count, (i - 1) % count, i]
        clean = {name: o[at] for name, o in self.clean.items()}
        pixels = bad.pixels if bad.pixels is not None else self.reads[i].pixels
        return Episode(
            tensors=self._tensors([self.reads[at[0]].pixels, self.reads[at[1]].pixels, pixels]),
            outputs={n: np.concatenate([o[:_BEFORE], answer[n]]) for n, o in clean.items()},
            clean=clean,
            time_ms=self._times(len(at)),
            now_ms=self._times(len(at)),
            entity="",
            onset=_BEFORE,
            faults=["", "", bad.fault],
            sizes=[self.reads[at[0]].size, self.reads[at[1]].size, bad.size],
        )

    def _times(self, count: int) -> Array:
        return EPOCH_MS + self.beat_ms * np.arange(count, dtype=np.int64)

    def _tensors(self, pixels: list[Any]) -> dict[str, Array]:
        made = {n: np.repeat(t, len(pixels), axis=0) for n, t in self.others.items()}
        return {self.tensor: np.stack(pixels), **made}

    def _answers(self, pixels: list[Any]) -> Outputs:
        return answered(self.predict, self._tensors(pixels), "image")

    def bad(self, predict: Predict) -> list[Outputs]:
        """Return what another model answers to the images of `plain`, each image asked once."""
        found = answered(predict, self._tensors([r.pixels for r in self.reads]), "image")
        count = len(self.reads)
        span = np.arange(WARM + LASTS)
        return [{name: o[(span + i) % count] for name, o in found.items()} for i in range(count)]


def image_sizes(view: View, most: int) -> tuple[tuple[int, ...], ...]:
    """Return the widths and heights of the first files of a training set."""
    found: set[tuple[int, ...]] = set()
    looked = 0
    for split in ("train", "calibrate"):
        for chunk in view.chunks(split):
            for data in chunk["image"]:
                facts = inspect(bytes(data))
                found.add((facts.width, facts.height))
                looked += 1
                if looked >= most:
                    return tuple(sorted(found))
    return tuple(sorted(found))


def _settings(pictures: Pictures) -> Any:
    return pictures.manifest.settings


def _row(outputs: Outputs, i: int) -> Outputs:
    return {name: values[i : i + 1] for name, values in outputs.items()}
