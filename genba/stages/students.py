"""Students: what a line's data say is approved, and the files of a package that hold it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from safetensors.numpy import save

from genba.core.codec import encode
from genba.core.digest import canonical_json
from genba.core.protocols import View
from genba.edge.assistant import ASSISTANT_FILE
from genba.edge.assistant.seams import Embed
from genba.edge.assistant.settings import AssistantSettings, read_settings
from genba.edge.encoder import Encoder
from genba.edge.student import (
    ANSWERS_FILE,
    STUDENT_FILE,
    Known,
    normalised,
    student_files,
    vectors_of,
)
from genba.edge.texts import messages_of, question_of
from genba.learn.encoder import MINILM, load_encoder
from genba.runs.progress import Progress

ENCODER_FILE: Final = "encoder.onnx"
USER: Final = "user"
_SPLITS: Final = ("train", "calibrate", "test")
_KNOWN: Final = ("train", "calibrate")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A question of the line's data with its approved answer."""

    text: str
    answer: str
    origin: str
    split: str
    weight: float = 1.0


def pairs_of(view: View) -> tuple[Pair, ...]:
    """Return the first questions of conversations with their approved answers.

    Of questions that are the same the one that weighs most counts: a correction by people.
    """
    found: dict[tuple[str, str], Pair] = {}
    for split in _SPLITS:
        for pair in _of_split(view, split):
            key = ("known" if split in _KNOWN else split, normalised(pair.text))
            if key not in found or pair.weight >= found[key].weight:
                found[key] = pair
    return tuple(found.values())


def known(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return those that a student may know: the test set stays unseen."""
    return tuple(pair for pair in pairs if pair.split in _KNOWN)


def knowledge(pairs: Sequence[Pair], embed: Embed) -> Known:
    """Return questions with their answers as a student keeps them; equal answers are one."""
    places: dict[str, int] = {}
    kept: list[Pair] = []
    answer = []
    for pair in pairs:
        key = normalised(pair.answer)
        if key not in places:
            places[key] = len(places)
            kept.append(pair)
        answer.append(places[key])
    return Known(
        questions=tuple(pair.text for pair in pairs),
        vectors=vectors_of([pair.text for pair in pairs], embed),
        answer=np.array(answer, dtype=np.int64),
        answers=tuple(pair.answer for pair in kept),
        origins=tuple(pair.origin for pair in kept),
    )


def encoder_for(
    files: Mapping[str, bytes], settings: Mapping[str, Any], progress: Progress
) -> bytes:
    """Return the encoder of a package, or the one that its settings name."""
    if ENCODER_FILE in files:
        return files[ENCODER_FILE]
    return load_encoder(str(settings.get("encoder", MINILM)), progress)


def files_with(
    files: Mapping[str, bytes], facts: Known, route: Mapping[str, Any], encoder: bytes
) -> dict[str, bytes]:
    """Return the files that put a student into a package.

    Args:
        files: Of the package; its `assistant.json` is continued.
        facts: What the student knows.
        route: `student` of `assistant.json`: weight, offset, bar.
        encoder: That the vectors are of.
    """
    tensors, answers = student_files(facts)
    data = files.get(ASSISTANT_FILE)
    before = read_settings(data, ASSISTANT_FILE) if data is not None else AssistantSettings()
    return {
        STUDENT_FILE: save({n: np.ascontiguousarray(t) for n, t in tensors.items()}),
        ANSWERS_FILE: answers,
        ENCODER_FILE: encoder,
        ASSISTANT_FILE: canonical_json(encode(replace(before, student=route))),
    }


def carried(
    files: Mapping[str, bytes],
    settings: bytes,
    view: View,
    model: Mapping[str, Any],
    progress: Progress,
) -> dict[str, bytes]:
    """Give a new package the student of the one in service, with what is approved by now.

    The router stays as it was proved, so the large model is spared what it was spared before, and
    corrections by people are known to the student. A new proof is `genba flywheel`'s.

    Args:
        files: Of the new package.
        settings: `assistant.json` of the one in service.
        view: The new dataset.
        model: Settings of the new model, which may name an encoder.
        progress: Who is told how far a download is.
    """
    pairs = known(pairs_of(view))
    if not pairs:
        return {}
    route = read_settings(settings, ASSISTANT_FILE).student
    graph = encoder_for(files, model, progress)
    encoder = Encoder(graph)
    try:
        return files_with(files, knowledge(pairs, encoder.embed), route, graph)
    finally:
        encoder.close()


def _of_split(view: View, split: str) -> Iterator[Pair]:
    for chunk in view.chunks(split):
        columns = (chunk["messages"], chunk["answer"], chunk["name"], chunk["weight"])
        for messages, answer, name, weight in zip(*columns, strict=True):
            said = messages_of(messages)
            if answer and sum(m.get("role") == USER for m in said) == 1:
                yield Pair(
                    text=question_of(said),
                    answer=str(answer),
                    origin=str(name),
                    split=split,
                    weight=float(weight),
                )
