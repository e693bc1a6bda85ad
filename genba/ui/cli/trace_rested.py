"""What an answer rested on: the passages it cites, in the documents of the package that gave it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import RenderableType

from genba.core.codec import encode
from genba.edge.passages import PASSAGES_FILE, read_shelf
from genba.store.home import Store
from genba.ui.cli.answer import facts
from genba.ui.cli.figures import moment, short

_SOURCES: Final = "sources"
_SHOWN: Final = 400  # characters of a passage


def rested(
    store: Store, package: Mapping[str, Any], values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the passages that an answer cites.

    Args:
        store: The home.
        package: That gave it, as `genba trace` describes it.
        values: What was captured of the prediction.

    Returns:
        For each passage what the answer said of it (`passage`, `document`, `place`, `support`),
        its `text`, and the document's `source`, `digest`, `access`, `licence` and `attribution`;
        nothing for answers that cite none.
    """
    file = (package.get("files") or {}).get(PASSAGES_FILE)
    cited = _cited(values.get(_SOURCES))
    if not file or not cited or not store.blobs.has(str(file["digest"])):
        return []
    shelf = read_shelf(store.blobs.read(str(file["digest"])))
    entries = {entry.id: entry for entry in shelf.passages}
    found = []
    for one in cited:
        entry = entries.get(str(one["passage"]))
        if entry is not None:
            document = encode(shelf.documents[entry.document])
            found.append({**document, **one, "text": entry.text})
    return found


def told(rows: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Return the passages as blocks."""
    return [
        facts(
            [
                ("document", " > ".join(filter(None, (row["document"], row["place"])))),
                ("says", f"{row['support']:.0%} of the answer: {_short(str(row['text']))}"),
                ("from", f"{row['source']}, sha256 {short(str(row['digest']))}"),
                *([("changed", moment(row["changed_ms"]))] if row.get("changed_ms") else []),
                ("for", ", ".join(row["access"]) or "everybody"),
                ("licence", f"{row['licence']}; {row['attribution']}".removesuffix("; ")),
            ]
        )
        for row in rows
    ]


def _cited(value: Any) -> list[dict[str, Any]]:
    """Return the passages of a captured `sources`; a student's answer cites none."""
    try:
        found = json.loads(value) if isinstance(value, str) else []
    except ValueError:
        return []
    rows = found if isinstance(found, list) else []
    return [one for one in rows if isinstance(one, dict) and "passage" in one]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
