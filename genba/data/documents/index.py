"""From passages to the files of a package; what is known already is not embedded again."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from genba.core.codec import encode
from genba.core.digest import canonical_json
from genba.data.documents.reading import Read
from genba.edge.assistant.seams import Embed
from genba.edge.passages import (
    FORMAT,
    PASSAGES_FILE,
    VECTORS_FILE,
    Document,
    Entry,
    Shelf,
    headed,
    read_shelf,
)
from genba.edge.tensors import read_tensors
from genba.runs.progress import Progress

_BATCH: Final = 16
#: Frequent words, by which a language is told; what has none of them is "" (no stemming).
_WORDS: Final = {
    "de": frozenset(("der", "die", "und", "ist", "nicht", "das", "ein", "mit")),
    "en": frozenset(("the", "and", "is", "of", "to", "in", "that", "for")),
    "es": frozenset(("el", "los", "una", "que", "y", "con", "para", "por")),
    "fr": frozenset(("le", "les", "et", "une", "des", "est", "pour", "dans")),
    "sv": frozenset(("och", "att", "det", "som", "är", "för", "på", "en")),
}
_KANA, _KANJI = ("\u3040", "\u30ff"), ("\u4e00", "\u9fff")
_JAPANESE: Final = 0.05  # of the characters
_LOOKED_AT: Final = 400_000  # characters

Floats = npt.NDArray[np.float32]


def files_of(
    read: Read,
    embed: Embed,
    encoder: str,
    progress: Progress,
    known: Mapping[str, bytes] | None = None,
) -> tuple[dict[str, bytes], int]:
    """Return the files of a package.

    Args:
        read: Documents and passages.
        embed: The encoder of the package.
        encoder: sha256 of its file.
        progress: Who is told how far it is.
        known: Files that were made before; their vectors are used again.

    Returns:
        The files, the same for the same documents, and how many passages were embedded.
    """
    shelf = Shelf(
        format=FORMAT,
        encoder=encoder,
        language=language_of([entry.text for entry in read.passages]),
        documents=tuple(read.documents),
        passages=tuple(read.passages),
    )
    before = _vectors(known or {}, encoder)
    texts = {key: key for key in (_key(shelf.documents, entry) for entry in shelf.passages)}
    new = sorted((key for key in texts if key not in before), key=len)
    for at in range(0, len(new), _BATCH):
        progress.step("embedding passages", at, len(new))
        some = new[at : at + _BATCH]  # of like length, so that little is padded
        before.update(zip(some, embed(some), strict=True))
    found = [before[_key(shelf.documents, entry)] for entry in shelf.passages]
    table = np.stack(found).astype(np.float16) if found else np.zeros((0, 1), dtype=np.float16)
    files = {
        PASSAGES_FILE: canonical_json(encode(shelf)),
        VECTORS_FILE: save({"embedding": np.ascontiguousarray(table)}),
    }
    return files, len(new)


def language_of(texts: Sequence[str]) -> str:
    """Return the language that most of some texts are in, as in ISO 639-1; "" where unknown.

    Example:
        >>> language_of(["The pump is in the cellar."]), language_of(["電源を切ってください。"])
        ('en', 'ja')
    """
    text = " ".join(texts)[:_LOOKED_AT].lower()
    if sum(_KANA[0] <= c <= _KANA[1] for c in text) > _JAPANESE * len(text):
        return "ja"
    if sum(_KANJI[0] <= c <= _KANJI[1] for c in text) > _JAPANESE * len(text):
        return "zh"
    words = text.split()
    count = {name: sum(word in known for word in words) for name, known in _WORDS.items()}
    best = max(count, key=lambda name: count[name])
    return best if count[best] else ""


def _vectors(files: Mapping[str, bytes], encoder: str) -> dict[str, Any]:
    """Return the vectors of files that were made with the same encoder, by what was embedded."""
    if not files:
        return {}
    shelf = read_shelf(files[PASSAGES_FILE])
    if shelf.encoder != encoder:
        return {}
    table = read_tensors(files[VECTORS_FILE])["embedding"]
    return {_key(shelf.documents, e): v for e, v in zip(shelf.passages, table, strict=True)}


def _key(documents: Sequence[Document], entry: Entry) -> str:
    return headed(documents[entry.document].title, entry.place, entry.text)
