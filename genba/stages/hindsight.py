"""What can only be known afterwards, such as how often the truth lay within a promised interval.

A task measures it over the predictions of a window and those of the window before whose truth was
not known by its end (the newest `ahead` of each entity), entity by entity: what was predicted then
shows in what was sent since. Which rows these are follows from the captures alone, so a watch that
was interrupted measures what it would have measured.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genba.core import tuning
from genba.core.codec import encode
from genba.core.line import Limit, Line
from genba.core.protocols import Array
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.core.values import Manifest, Measure, Tensor
from genba.edge.package import encode_entities
from genba.stages.samples import affordable
from genba.stages.tune import parameters
from genba.store.captures import OK
from genba.store.home import Store

#: Rows kept for it, the newest; a forecaster's take some ten kilobytes each.
_KEPT_BYTES: Final = 64 << 20
_MOST_ROWS: Final = 20_000
_NOT_KEPT: Final = frozenset({"image", "map", "mask", "embedding"})  # too large, and of no use here
_SMALLEST_CHANGE: Final = 1e-6  # relative; less is not worth an event
BY: Final = "watch"


def looks_back(task: Task) -> bool:
    """Say whether a task measures anything in hindsight; the package remembers it."""
    return type(task).hindsight is not Task.hindsight


def rows_kept(manifest: Manifest) -> int:
    """Return how many captured rows are kept for it: none where its task looks at none."""
    drift = manifest.settings.get("drift") or {}
    if not drift.get("hindsight"):
        return 0
    return affordable(manifest.signature, _KEPT_BYTES, _MOST_ROWS)


def kept(
    parts: Sequence[pa.Table], rows: pa.Table, manifest: Manifest, most: int
) -> list[pa.Table]:
    """Add captured rows to those that are kept, and forget the oldest beyond the most."""
    names = ["entity", "time", "received_ms", *(t.name for t in _tensors(manifest))]
    rows = rows.filter(pc.equal(rows["status"], OK))
    rows = rows.select([name for name in names if name in rows.column_names])
    found = [*parts, rows] if rows.num_rows else list(parts)
    beyond = sum(part.num_rows for part in found) - most
    while beyond > 0:
        first = found[0].slice(beyond)
        beyond -= found[0].num_rows - first.num_rows
        found = [first, *found[1:]] if first.num_rows else found[1:]
    return found


def pending(parts: Sequence[pa.Table], manifest: Manifest) -> list[pa.Table]:
    """Return the rows that the next window needs: those whose truth comes with later rows.

    What was judged with this window is not judged again with the next, under parameters that may
    be others by then.
    """
    if not parts or "ahead" not in manifest.settings:
        return list(parts)
    ahead = int(manifest.settings["ahead"])
    table = pa.concat_tables(parts, promote_options="default").combine_chunks()
    entity = np.array([str(name or "") for name in table["entity"].to_pylist()])
    time = pc.coalesce(table["time"], table["received_ms"]).to_numpy()
    newest: list[int] = []
    for name in set(entity.tolist()):
        at = np.flatnonzero(entity == name)
        newest += at[np.argsort(time[at], kind="stable")[len(at) - min(ahead, len(at)) :]].tolist()
    return [table.take(pa.array(sorted(newest), pa.int64()))]


def measured(task: Task, manifest: Manifest, parts: Sequence[pa.Table]) -> dict[str, Measure]:
    """Measure in hindsight what the kept rows show, over all entities."""
    found: dict[str, list[Measure]] = {}
    for seen in _by_entity(manifest, parts):
        for name, measure in task.hindsight(seen, manifest.settings).items():
            if measure.n and math.isfinite(measure.value):
                found.setdefault(name, []).append(measure)
    return {name: pooled(measures) for name, measures in found.items()}


def pooled(measures: Sequence[Measure]) -> Measure:
    """Return one measure of several entities, each weighing as many samples as it has.

    The intervals are put together as those of independent means.

    Example:
        >>> pooled([Measure(value=0.9, n=300), Measure(value=0.7, n=100)])
        Measure(value=0.85, unit='', low=None, high=None, method='measured', n=400)
    """
    weights = np.array([m.n or 0 for m in measures], dtype=np.float64)
    total = float(weights.sum())
    value = float(np.dot(weights, [m.value for m in measures]) / total)
    low: float | None = None
    high: float | None = None
    if all(m.low is not None and m.high is not None for m in measures):
        below = [m.value - (m.low or 0.0) for m in measures]
        above = [(m.high or 0.0) - m.value for m in measures]
        low = value - float(np.linalg.norm(weights * below)) / total
        high = value + float(np.linalg.norm(weights * above)) / total
    first = measures[0]
    return Measure(
        value=value, unit=first.unit, low=low, high=high, method=first.method, n=int(total)
    )


def findings(measures: Mapping[str, Measure], line: Line) -> Iterator[dict[str, Any]]:
    """Yield a finding for each measure; it drifted where the whole interval misses its gate."""
    for name, measure in measures.items():
        limit = line.gates.get(name)
        missed = _missed(measure, limit) if limit else None
        yield {
            "name": name,
            "kind": "hindsight",
            "statistic": round(measure.value, 6),
            "low": None if measure.low is None else round(measure.low, 6),
            "high": None if measure.high is None else round(measure.high, 6),
            "n": measure.n,
            "limit": missed if missed is not None else _edge(limit),
            "null_q": None,
            "drifted": missed is not None,
        }


def retune(
    store: Store,
    task: Task,
    manifest: Manifest,
    package: str,
    measures: Mapping[str, Measure],
    key: str,
) -> None:
    """Set the parameters a task asks for, given what was measured in hindsight.

    What a person has set is left alone.

    Args:
        store: Where the ledger is.
        task: Says which parameters.
        manifest: Of the package.
        package: Its id.
        measures: Of the newest window.
        key: Of the window; each parameter is set at most once for it.
    """
    if not measures:
        return
    known = {p.name: p for p in parameters(store, package, manifest)}
    now = {name: p.value for name, p in known.items()}
    asked = task.tune(measures, {**manifest.settings, "parameters": now})
    for name, value in asked.items():
        if name not in known or not math.isfinite(value) or known[name].by not in ("", BY):
            continue
        if abs(value - now[name]) <= _SMALLEST_CHANGE * abs(value):
            continue
        body = {
            "parameter": name,
            "value": float(value),
            "reason": "; ".join(f"{n} was {m} in hindsight" for n, m in measures.items()),
            "by": BY,
            "evidence": {"before": now[name], **{n: encode(m) for n, m in measures.items()}},
        }
        store.ledger.append(
            tuning.KIND, body, line=manifest.line, subject=package, key=f"tune/{key}/{name}"
        )


def task_of(manifest: Manifest) -> Task:
    """Return the task of a package; imported only for packages that look back."""
    task: Task = resolve("task", manifest.task)()
    return task


def _tensors(manifest: Manifest) -> list[Tensor]:
    signature = manifest.signature
    return [
        t
        for t in (*signature.inputs, *signature.outputs)
        if t.role not in (*_NOT_KEPT, "entity", "time")
    ]


def _by_entity(manifest: Manifest, parts: Sequence[pa.Table]) -> Iterator[dict[str, Array]]:
    """Yield the kept rows of each entity in the order of time, shaped as the signature says."""
    if not parts:
        return
    table = pa.concat_tables(parts, promote_options="default").combine_chunks()
    names = [str(name or "") for name in table["entity"].to_pylist()]
    time = pc.coalesce(table["time"], table["received_ms"]).to_numpy()
    columns = {
        t.name: column
        for t in _tensors(manifest)
        if t.name in table.column_names and (column := _shaped(table, t)) is not None
    }
    entity = np.array(names)
    for name in sorted(set(names)):
        at = np.flatnonzero(entity == name)
        at = at[np.argsort(time[at], kind="stable")]
        yield {
            "entity": encode_entities([name] * len(at), manifest.entities),
            "time": time[at],
            **{n: column[at] for n, column in columns.items()},
        }


def _shaped(table: pa.Table, tensor: Tensor) -> Array | None:
    column = table[tensor.name].combine_chunks()
    if column.null_count:
        return None
    flat = column.flatten() if pa.types.is_list(column.type) else column
    values = flat.to_numpy(zero_copy_only=False)
    return np.asarray(values).reshape(table.num_rows, *tensor.shape[1:])


def _missed(measure: Measure, limit: Limit) -> float | None:
    """Return the end of a gate beyond which the whole interval lies, None if there is none."""
    low = measure.value if measure.low is None else measure.low
    high = measure.value if measure.high is None else measure.high
    if limit.min is not None and high < limit.min:
        return limit.min
    if limit.max is not None and low > limit.max:
        return limit.max
    return None


def _edge(limit: Limit | None) -> float | None:
    if limit is None:
        return None
    return limit.min if limit.min is not None else limit.max
