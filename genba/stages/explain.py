"""Why a package answered as it did: what drove the answer, and which known cases look alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from genba.core.problem import Problem
from genba.core.protocols import Array, Predict, Tensors
from genba.core.resolve import resolve
from genba.core.task import Explanation, Task
from genba.core.values import Manifest, Tensor
from genba.data import segments, versions
from genba.edge.images import decode
from genba.edge.package import CASES_FILE, LoadedPackage, encode_entities, load
from genba.edge.predict import open_engine
from genba.edge.tensors import read_tensors
from genba.learn.neighbours import nearest, novelty
from genba.stages.tune import values
from genba.store.captures import DIGEST
from genba.store.home import Store

_KINDS: Final = {
    "FP32": np.float32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}
_LEFT_OUT: Final = frozenset({"parameter", "given"})  # inputs that a request need not have
#: Columns of a dataset by which a person finds a row again, those that it has.
_FOUND: Final = ("entity", "time", "label", "split", "name", "digest", "text", "answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A row that the model has learned from and that looks like the sample."""

    row: int  # id in the dataset
    distance: float  # in standard deviations of the known cases
    label: float | None
    called: str | None  # the class behind the label
    dataset: str
    entity: str | None = None
    time: int | None = None
    split: str | None = None
    name: str | None = None  # of the image file; of a text, where it came from
    digest: str | None = None  # of its bytes
    text: str | None = None  # of a conversation: what was asked
    answer: str | None = None  # and what was to be answered


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """One prediction explained."""

    package: str
    explanation: Explanation
    cases: tuple[Case, ...]  # nearest first
    novelty: float  # 0: as usual, towards 1: unlike everything known

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; of a heat map only its size and peak."""
        heat = self.explanation.heat
        return {
            "package": self.package,
            "attributions": [
                {name: _plain(getattr(a, name)) for name in ("name", "share", "value", "usual")}
                for a in self.explanation.attributions
            ],
            "heat": None
            if heat is None
            else {"shape": list(np.shape(heat)), "peak": _plain(np.nanmax(heat))},
            "novelty": self.novelty,
            "cases": [
                {n: v for n in Case.__slots__ if (v := getattr(case, n)) is not None}
                for case in self.cases
            ],
        }


def explain(store: Store, package_id: str, tensors: Tensors, *, neighbours: int = 3) -> Explained:
    """Explain the answer of a package to one sample, with the runtime it answers with.

    Args:
        store: Where package and dataset are.
        package_id: Which package.
        tensors: A batch of one, as the signature's inputs; parameters that are left out are as
            they were set in service.
        neighbours: How many known cases to find.

    Raises:
        Problem: G302 or G604 when the package is not whole, G601 or G901 when its runtime cannot
            run here.
    """
    package = load(store.blobs.read(package_id), store.blobs.read, expect=package_id)
    manifest = package.manifest
    task: Task = resolve("task", manifest.task)()
    given = {**_parameters(store, package), **tensors}
    engine = open_engine(package)
    try:
        explanation = task.explain(
            _with_parameters(engine.run, given, manifest), given, manifest.settings
        )
        made = engine.run(given) if task.embeds_answers else {}
        looks = task.embed(given, made, manifest.settings)
    finally:
        engine.close()
    cases, unlike = _nearest(store, package, looks, neighbours)
    return Explained(package=package_id, explanation=explanation, cases=cases, novelty=unlike)


def given_tensors(manifest: Manifest, row: Mapping[str, Any]) -> dict[str, Array]:
    """Return what a package was given for one prediction, from its captured row.

    Args:
        manifest: Of the package.
        row: As `genba.store.captures.find_prediction` returns it.

    Raises:
        Problem: G550 when an input was not captured.
    """
    return {
        tensor.name: _given(tensor, manifest, row)
        for tensor in manifest.signature.inputs
        if tensor.role not in _LEFT_OUT or row.get(tensor.name) is not None
    }


def _given(tensor: Tensor, manifest: Manifest, row: Mapping[str, Any]) -> Array:
    if tensor.role == "entity":
        return encode_entities([row.get("entity") or ""], manifest.entities)
    value = row.get("time" if tensor.role == "time" else tensor.name)
    if value is None:
        raise Problem(
            "G550",
            f"The input {tensor.name} of this prediction was not kept, so it cannot be explained.",
            why="The line keeps a digest of its inputs: [capture] inputs."
            if row.get(DIGEST)
            else "The line file may say so: [capture] inputs.",
            tries=["genba trace last --explain", "genba explain G550"],
        )
    if tensor.role == "image" and isinstance(value, bytes):
        return decode(value, tensor.shape[1])[None]
    kind = _KINDS[tensor.datatype]
    return np.asarray(value, dtype=kind).reshape(1, *tensor.shape[1:])


def _parameters(store: Store, package: LoadedPackage) -> dict[str, Array]:
    """Return parameters as they are in service now."""
    found = values(store, package.id, package.manifest)
    return {name: np.array([value], dtype=np.float32) for name, value in found.items()}


def _with_parameters(run: Predict, given: Tensors, manifest: Manifest) -> Predict:
    """Return a predict that repeats parameters where an explanation asks for several variants."""
    names = [t.name for t in manifest.signature.inputs if t.role == "parameter"]

    def predict(tensors: Tensors) -> dict[str, Array]:
        count = len(next(iter(tensors.values())))
        return run({**tensors, **{name: np.repeat(given[name][:1], count) for name in names}})

    return predict


def _nearest(
    store: Store, package: LoadedPackage, looks: Array, count: int
) -> tuple[tuple[Case, ...], float]:
    if CASES_FILE not in package.files:  # a package from before there were any
        return (), 0.0
    known = read_tensors(package.files[CASES_FILE])
    if not len(known["row"]):
        return (), 0.0
    manifest = package.manifest
    distance, index = nearest(known["embedding"], looks, count)
    facts = _facts(store, manifest.dataset, known["row"][index[0]].tolist())
    cases = tuple(
        _case(int(known["row"][at]), float(far), float(known["label"][at]), manifest, facts)
        for far, at in zip(distance[0], index[0], strict=True)
    )
    return cases, float(novelty(known["embedding"], looks)[0])


def _case(
    row: int, distance: float, label: float, manifest: Manifest, facts: Mapping[int, Any]
) -> Case:
    known = {n: v for n, v in facts.get(row, {}).items() if n != "label"}
    number = label if np.isfinite(label) else None
    return Case(
        row=row,
        distance=distance,
        label=number,
        called=class_name(number, manifest.classes),
        dataset=manifest.dataset,
        **known,
    )


def class_name(label: float | None, classes: Sequence[str]) -> str | None:
    """Return what a label means, None where labels are plain numbers.

    Example:
        >>> class_name(1.0, ("good", "scratch")), class_name(12.5, ())
        ('scratch', None)
    """
    if label is None or not 0 <= label < len(classes):
        return None
    return classes[int(label)]


def _facts(store: Store, dataset: str, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return what the dataset knows of some rows; only segments that hold one are read."""
    found: dict[int, dict[str, Any]] = {}
    version = versions.load(store, dataset)
    columns = [name for name in _FOUND if name in version.columns]
    for segment in version.segments:
        if not _holds(store, segment.digest, rows):
            continue
        frame = segments.read(store.blobs, segment, ["row", *columns])
        for fact in frame.filter(pl.col("row").is_in(list(rows))).iter_rows(named=True):
            found[int(fact.pop("row"))] = fact
    return found


def _holds(store: Store, digest: str, rows: Sequence[int]) -> bool:
    """Say whether a segment can hold one of the rows, from the statistics in its footer."""
    with pq.ParquetFile(store.blobs.path(digest)) as file:
        index = file.schema_arrow.get_field_index("row")
        for group in range(file.metadata.num_row_groups):
            column = file.metadata.row_group(group).column(index)
            if not column.is_stats_set:
                return True
            low, high = column.statistics.min, column.statistics.max
            if any(low <= row <= high for row in rows):
                return True
    return False


def _plain(value: Any) -> Any:
    """Return a number as JSON takes it: what is not finite is missing."""
    if isinstance(value, str):
        return value
    return float(value) if np.isfinite(value) else None
