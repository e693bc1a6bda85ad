"""Why a prediction came out as it did: what drove it, its heat map, its nearest known cases."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from genba.core.problem import Problem
from genba.edge.images import encode_png
from genba.edge.package import load
from genba.stages.explain import explain, given_tensors
from genba.store.home import Store
from genba.ui.cli import heatmap
from genba.ui.cli.answer import facts, table
from genba.ui.cli.figures import number, short

_SHOWN: Final = 12
_SHOWN_TEXT: Final = 60  # characters of a question
_CLOCK_FROM_MS: Final = 10**11  # smaller times are row numbers or cycles, not a date since 1973


def why(store: Store, row: Mapping[str, Any], save_map: Path | None) -> dict[str, Any]:
    """Explain a captured prediction.

    Args:
        store: The home.
        row: Of the capture.
        save_map: Where to write the heat map over the image, as PNG.

    Raises:
        Problem: G550 when an input was not kept, G553 when there is no heat map to be saved.
    """
    package = str(row["package"])
    manifest = load(store.blobs.read(package), store.blobs.read, expect=package).manifest
    tensors = given_tensors(manifest, row)
    found = explain(store, package, tensors)
    data = found.to_json()
    if save_map:
        if found.explanation.heat is None:
            raise Problem(
                "G553",
                "There is no heat map of this prediction.",
                where=str(save_map),
                why="Only what sees images can say where in one it saw something.",
                tries=["genba trace last --explain", "genba explain G553"],
            )
        image = next(t.name for t in manifest.signature.inputs if t.role == "image")
        known = row[image]
        sent = known if isinstance(known, bytes) else encode_png(np.asarray(tensors[image])[0])
        heatmap.write(save_map, heatmap.overlay(sent, found.explanation.heat))
        data["map"] = str(save_map)
    return data


def explained(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return the blocks of an explanation."""
    shown: list[RenderableType] = []
    if found["attributions"]:
        rows = [
            [a["name"], f"{100 * a['share']:.0f} %", _reading(a["value"]), _reading(a["usual"])]
            for a in found["attributions"][:_SHOWN]
        ]
        if (more := len(found["attributions"]) - _SHOWN) > 0:
            rows.append([f"and {more} more", "", "", ""])
        heads = ["driven by", "share", "read", "usual"]
        shown.append(table(heads, rows, right=heads[1:]))
    pairs: list[tuple[str, RenderableType]] = []
    if heat := found.get("heat"):
        peak = _reading(heat["peak"])
        pairs.append(("heat map", f"peak {peak} of a threshold of 1"))
    if found.get("map"):
        pairs.append(("saved to", str(found["map"])))
    if found["cases"]:
        far = found["novelty"]
        pairs.append(
            ("novelty", f"{number(far)} ({'unlike' if far > 0.5 else 'like'} what is known)")
        )
    if pairs:
        shown.append(facts(pairs))
    if found["cases"]:
        what = "asked" if any(c.get("text") for c in found["cases"]) else "label"
        heads = ["nearest known case", "distance", what, "which is"]
        rows = [
            [f"row {c['row']}", number(c["distance"]), _label(c), _where(c)] for c in found["cases"]
        ]
        shown.append(table(heads, rows, right=("distance",)))
    return shown or [Text("  Its task gives no explanation.")]


def _reading(value: float | str | None) -> str:
    if value is None:
        return "missing"
    return value if isinstance(value, str) else number(float(value))


def _label(case: Mapping[str, Any]) -> str:
    if case.get("called"):
        return str(case["called"])
    if case.get("text"):
        return str(case["text"])[:_SHOWN_TEXT]
    label = case.get("label")
    return "none" if label is None else number(float(label))


def _where(case: Mapping[str, Any]) -> str:
    """Say where a person finds a case: its file, or its entity and time."""
    if case.get("name"):
        return f"{case['name']} ({case.get('split', '')})".replace(" ()", "")
    parts = [str(case["entity"])] if case.get("entity") else []
    if case.get("time") is not None:
        time = int(case["time"])
        clock = time >= _CLOCK_FROM_MS
        when = f"{datetime.fromtimestamp(time / 1e3, UTC):%Y-%m-%d %H:%M}" if clock else str(time)
        parts.append(when)
    return f"{' at '.join(parts)} in {short(str(case['dataset']))}"
