"""`genba-edge predict`: answers of a release, after its self-test."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.resolve import resolve
from genba.core.values import Signature, Tensor
from genba.edge.cli.answer import Said
from genba.edge.cli.opening import add_release, opened
from genba.edge.cli.rows import read_rows
from genba.edge.interface import Interface
from genba.edge.predict import Predictor, golden_samples
from genba.edge.release import Release

_SHOWN: Final = 20  # rows for people; --json has them all
_NOT_SHOWN: Final = frozenset({"map", "mask", "embedding", "look"})
_KINDS: Final = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_,
                 "INT32": np.int32, "UINT8": np.uint8, "BYTES": np.object_}  # fmt: skip


class Predict:
    """Answer once and end; `genba-edge serve` goes on answering."""

    help: ClassVar[str] = "Answer for the samples of a file, after the self-test."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add the release and where the samples are."""
        add_release(parser)
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--rows", type=Path, help="CSV: rows as in the line's data")
        source.add_argument("--input", type=Path, help="JSON: an object of tensors by name")
        source.add_argument("--image", type=Path, nargs="+", help="JPEG or PNG files")
        source.add_argument("--sample", action="store_true", help="the recorded samples")

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Answer.

        Raises:
            Problem: As `genba.edge.release.open_release` and `Release.predictor`; G602 when what
                was given does not fit the package.
        """
        release = opened(given)
        predictor = release.predictor()
        names: list[str] = []
        try:
            if given.rows:
                tensors, names = read_rows(given.rows, release.package, release.interface)
            else:
                tensors = _tensors(given, predictor)
            outputs = predictor.predict(tensors)
        finally:
            predictor.engine.close()
        plain = {name: tensor.tolist() for name, tensor in outputs.items()}
        head = {"line": release.statement.line, "release": release.statement.release}
        body = {**head, "package": release.package.id, "samples": names, "outputs": plain}
        return Said(
            data=body,
            lines=[*table(release.interface, outputs, names), *_unguarded(release)],
        )


def read_tensors(body: Any, signature: Signature, where: str) -> dict[str, Array]:
    """Return the tensors of a JSON object, in the types and shapes of a signature.

    Args:
        body: Tensors by name, as nested lists with the batch first.
        signature: Of the package.
        where: The file, for messages.

    Raises:
        Problem: G602 when a name, a type or a shape is not that of the signature.
    """
    if not isinstance(body, dict):
        raise _unfit(where, "It must hold an object of tensors by name.", signature)
    known = {t.name: t for t in signature.inputs}
    strange = sorted(body.keys() - known.keys())
    missing = sorted(n for n, t in known.items() if n not in body and t.default is None)
    if strange or missing:
        what = f"It names {strange[0]!r}" if strange else f"{missing[0]} is missing"
        raise _unfit(where, f"{what}.", signature)
    return {name: _tensor(known[name], value, where, signature) for name, value in body.items()}


def _tensors(given: argparse.Namespace, predictor: Predictor) -> dict[str, Array]:
    signature = predictor.package.manifest.signature
    if given.sample:
        return golden_samples(predictor.package)[0]
    if given.image:
        return _images(given.image, signature)
    try:
        body = json.loads(given.input.read_bytes())
    except OSError as error:
        raise _unfit(
            str(given.input), f"It cannot be read: {error.strerror}.", signature
        ) from error
    except (ValueError, RecursionError) as error:
        raise _unfit(str(given.input), f"It is not JSON: {error}.", signature) from error
    return read_tensors(body, signature, str(given.input))


def _images(paths: list[Path], signature: Signature) -> dict[str, Array]:
    port = next((t for t in signature.inputs if t.role == "image"), None)
    if port is None:
        raise _unfit("--image", "This release takes no images.", signature)
    decode: Any = resolve("decoder", "image")
    try:
        images = [decode(path.read_bytes(), port.shape[1]) for path in paths]
    except OSError as error:
        raise _unfit(
            str(error.filename), f"It cannot be read: {error.strerror}.", signature
        ) from error
    return {port.name: np.stack(images)}


def _tensor(declared: Tensor, value: Any, where: str, signature: Signature) -> Array:
    named = declared.role == "entity"  # may be given by name
    try:
        array = np.asarray(value) if named else np.asarray(value, dtype=_KINDS[declared.datatype])
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise _unfit(where, f"{declared.name}: {error}.", signature) from error
    wanted = declared.shape
    fits = array.ndim == len(wanted) and all(
        w in (-1, g) for w, g in zip(wanted, array.shape, strict=True)
    )
    if not fits or (named and array.dtype.kind not in "iuU"):
        raise _unfit(where, f"{declared.name} has the shape {list(array.shape)}.", signature)
    return array


def _unfit(where: str, why: str, signature: Signature) -> Problem:
    wanted = "; ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in signature.inputs)
    return Problem(
        "G602",
        "What was given does not fit the release.",
        where=where,
        why=f"{why} It takes {wanted}.",
        tries=["genba-edge predict DIR --sample", "genba explain G602"],
    )


def table(interface: Interface, outputs: dict[str, Array], names: Sequence[str] = ()) -> list[str]:
    """Return answers as the lines of a table, one for each sample; what is large is left out."""
    shown = [p for p in interface.outputs if p.role not in _NOT_SHOWN and p.name in outputs]
    rows = len(next(iter(outputs.values())))
    cells = [[p.name for p in shown]]
    for at in range(min(rows, _SHOWN)):
        cells.append([_cell(outputs[p.name][at], p.role, interface.classes) for p in shown])
    if names:
        cells = [[name, *row] for name, row in zip(["", *names], cells, strict=False)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
    return lines + ([f"… {rows - _SHOWN:,} more: --json"] if rows > _SHOWN else [])


def _unguarded(release: Release) -> list[str]:
    if release.safety is None:
        return []
    return ["", "without the safety envelope: that is `genba-edge serve`"]


def _cell(value: Any, role: str, classes: tuple[str, ...]) -> str:
    if role == "class" and classes:
        return classes[int(value)] if 0 <= int(value) < len(classes) else "abstains"
    if isinstance(value, np.ndarray):
        return " ".join(_cell(one, role, ()) for one in value.ravel())
    if isinstance(value, (bytes, str)):
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return f"{value:.4g}" if isinstance(value, np.floating) else str(value).lower()
