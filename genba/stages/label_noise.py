"""How far the labels that people gave in production can be trusted, for any task."""

import numpy as np

from genba.core.line import Line
from genba.core.protocols import JsonObject, Predict, View
from genba.core.task import Task
from genba.learn.noise import LabelNoise, worst
from genba.stages.samples import in_chunks, part


def label_noise(
    task: Task, predict: Predict, live: View, settings: JsonObject
) -> LabelNoise | None:
    """Estimate how many of the labels people gave in production are wrong, in the worst batch.

    Args:
        task: Says what samples look like.
        predict: A model of the task; how it answers is part of how a sample looks.
        live: The rows that were served.
        settings: Of that model.

    Returns:
        None where there are no labels, or they are plain numbers, which differ without being wrong.
    """
    features, entity, time, label = [], [], [], []
    for split in ("train", "calibrate", "test"):
        for samples in in_chunks(task, live, split, settings):
            known = np.isfinite(samples.label)
            if known.any():
                said = part(samples, known)
                features.append(task.embed(said.tensors, predict(said.tensors), settings))
                entity.append(said.entity.astype(np.int64))
                time.append(said.time)
                label.append(said.label)
    kinds = len(live.classes) or 2
    if not label or not np.isin(np.concatenate(label), np.arange(kinds)).all():
        return None
    ordered = task.modality != "image"  # one part on a belt says nothing about the next
    return worst(
        *(np.concatenate(column) for column in (features, entity, time, label)),
        merge=int(settings.get("merge") or 1) if ordered else None,
        classes=max(2, kinds),
    )


def too_noisy(noise: LabelNoise | None, line: Line) -> list[str]:
    """Return why a run is refused whose feedback is noisier than the line allows."""
    limit = line.retrain.label_noise
    if noise is None or not noise.exceeds(limit):
        return []
    return [
        f"The feedback is too noisy to learn from: in the worst batch {noise.rate} of "
        f"{noise.labels} labels seem wrong; at most {limit:g} is allowed."
    ]
