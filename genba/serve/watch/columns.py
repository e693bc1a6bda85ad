"""Computed parts become columns: whole arrays at a time, and nothing in Python for each row.

What is done for each request is to look at its few fields; the numbers themselves are joined,
compared and encoded by libraries that let the event loop run meanwhile.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genba.core.line import Capture
from genba.core.protocols import Array
from genba.serve.lanes.jobs import Job, Part
from genba.serve.oip import images
from genba.store.captures import DIGEST, ERROR, NOT_A_NUMBER, OK, CapturedRows, in_sample

EVERYTHING: Final = Capture()
_DIGEST_BYTES: Final = 32
Spread = Callable[[Any], pa.Array]


def as_rows(parts: Sequence[Part], rule: Capture = EVERYTHING) -> list[CapturedRows]:
    """Turn computed parts into rows: one block for what has the same package, shapes and fate.

    Args:
        parts: As they were computed.
        rule: What the line keeps.
    """
    groups: dict[Any, list[Part]] = {}
    for part in parts:
        tensors = (*part.tensors.values(), *part.outputs.values())
        shapes = tuple([tensor.shape[1:] for tensor in tensors])  # a list is faster
        groups.setdefault((part.model.package, part.error is None, shapes), []).append(part)
    blocks = (_block(group, rule) for group in groups.values())
    return [block for block in blocks if len(block.n)]


def _block(parts: Sequence[Part], rule: Capture) -> CapturedRows:
    model = parts[0].model
    jobs = [job for part in parts for job in part.jobs]
    counts = np.array([job.rows for job in jobs])
    starts = np.array([job.first for job in jobs])
    place = np.repeat(np.arange(len(jobs)), counts)  # of each row: the request it is of
    n = starts[place] + np.arange(len(place)) - (np.cumsum(counts) - counts)[place]
    kept = None if rule.sample >= 1 else np.flatnonzero(_chosen(parts, n, rule.sample))
    rows = place if kept is None else place[kept]
    ended = np.repeat([part.finished for part in parts], [len(part.jobs) for part in parts])
    waited = (ended - np.array([job.received for job in jobs])) * 1e6
    made = model.schema.kept_outputs if parts[0].error is None else ()
    if rule.inputs != "all":  # what was said may tell what was asked
        made = tuple(name for name in made if name not in model.schema.said)
    return CapturedRows(
        package=model.package,
        n=n if kept is None else n[kept],
        received_ms=np.array([job.received_ms for job in jobs])[rows],
        role=_words([job.role for job in jobs], rows),
        entity=_entities(parts, jobs, kept),
        time=_times(jobs, kept, len(n)),
        latency_us=waited.astype(np.int64)[rows],
        status=_states(parts, kept),
        features=_given(parts, jobs, rule, kept),
        outputs={name: _joined([p.outputs[name] for p in parts], kept) for name in made},
        trace=_traces(jobs, rows),
    )


def _chosen(parts: Sequence[Part], n: Array, share: float) -> Array:
    """Return the mask of what is kept of a sample: what its number says, alarms and failures."""
    if parts[0].error is not None:
        return np.ones(len(n), dtype=np.bool_)
    chosen: Array = in_sample(n, share) | _bad(parts)
    alarm = parts[0].model.schema.alarm
    return chosen if alarm is None else chosen | _joined([p.outputs[alarm] for p in parts], None)


def _joined(arrays: Sequence[Array], kept: Array | None) -> Array:
    whole: Array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return whole if kept is None else whole[kept]


def _words(words: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Array:
    """Return the word of each row, from the words of the requests."""
    if len(set(words)) == 1:
        return pa.repeat(words[0], len(rows))
    return pa.array(words, pa.string()).take(pa.array(rows))


def _traces(jobs: Sequence[Job], rows: npt.NDArray[np.int64]) -> pa.Array | None:
    traces = [job.trace or None for job in jobs]
    if not any(traces):
        return None
    return pa.array(traces, pa.string()).take(pa.array(rows))


def _given(
    parts: Sequence[Part], jobs: Sequence[Job], rule: Capture, kept: Array | None
) -> Mapping[str, Array | pa.Array]:
    """Return what the package was given to predict from, or its digest; images as files."""
    schema = parts[0].model.schema
    if rule.inputs == "none":
        return {}
    given: dict[str, Array] = {}
    scored = () if schema.given is None else (schema.given,)
    for name in (*schema.features, *scored, *schema.parameters):
        if name == schema.image:
            pictures = [picture for job in jobs for picture in job.pictures]
            pictures = pictures if kept is None else [pictures[k] for k in kept.tolist()]
            given[name] = images.kept(pictures)
        else:
            given[name] = _joined([part.tensors[name] for part in parts], kept)
    return given if rule.inputs == "all" else {DIGEST: _digests(given)}


def _digests(given: Mapping[str, Array]) -> pa.Array:
    """Return the SHA-256 of each row: the bytes of its inputs in the order of the package."""
    columns = [_row_bytes(tensor) for tensor in given.values()]
    digests = (hashlib.sha256(b"".join(row)).digest() for row in zip(*columns, strict=True))
    joined = b"".join(digests)
    count = len(joined) // _DIGEST_BYTES
    kind = pa.binary(_DIGEST_BYTES)
    return pa.FixedSizeBinaryArray.from_buffers(kind, count, [None, pa.py_buffer(joined)])


def _row_bytes(tensor: Array) -> Sequence[bytes | memoryview]:
    if tensor.dtype == object:
        return list(tensor)
    flat = memoryview(np.ascontiguousarray(tensor).data).cast("B")
    width = flat.nbytes // len(tensor)
    return [flat[at : at + width] for at in range(0, flat.nbytes, width)]


def _entities(parts: Sequence[Part], jobs: Sequence[Job], kept: Array | None) -> pa.Array:
    schema = parts[0].model.schema
    if schema.entity is None:
        names = pa.nulls(sum(part.rows for part in parts), pa.string())
    else:
        known = len(schema.entities)
        indices = _joined([part.tensors[schema.entity] for part in parts], None)
        inside = np.where((indices >= 0) & (indices < known), indices, known)
        names = pa.array([*schema.entities, None], pa.string()).take(pa.array(inside))
    if any([job.entity_names is not None for job in jobs]):
        names = _as_sent(names.to_pylist(), jobs)
    return names if kept is None else names.take(pa.array(kept))


def _as_sent(names: list[str | None], jobs: Sequence[Job]) -> pa.Array:
    """Return the names as clients wrote them, also of entities that the package has not seen."""
    start = 0
    for job in jobs:
        if job.entity_names is not None:
            names[start : start + job.rows] = job.entity_names
        start += job.rows
    return pa.array(names, pa.string())


def _times(jobs: Sequence[Job], kept: Array | None, rows: int) -> pa.Array:
    unsaid = [job.time is None for job in jobs]  # a list is faster than a generator
    if all(unsaid):
        times = pa.nulls(rows, pa.int64())
    elif any(unsaid):
        each = ([None] * job.rows if job.time is None else job.time.tolist() for job in jobs)
        times = pa.array(list(chain.from_iterable(each)), pa.int64())
    else:
        times = pa.array(np.concatenate([job.time for job in jobs]), pa.int64())
    return times if kept is None else times.take(pa.array(kept))


def _states(parts: Sequence[Part], kept: Array | None) -> pa.Array:
    rows = sum(part.rows for part in parts)
    if parts[0].error is not None:
        return pa.repeat(ERROR, rows if kept is None else len(kept))
    if all(part.bad_rows is None for part in parts):
        return pa.repeat(OK, rows if kept is None else len(kept))
    bad = _bad(parts)
    return pc.if_else(pa.array(bad if kept is None else bad[kept]), NOT_A_NUMBER, OK)


def _bad(parts: Sequence[Part]) -> npt.NDArray[np.bool_]:
    """Return the mask of rows with an output that is not a number."""
    masks = [
        np.zeros(part.rows, dtype=np.bool_) if part.bad_rows is None else part.bad_rows
        for part in parts
    ]
    joined: npt.NDArray[np.bool_] = np.concatenate(masks)
    return joined
