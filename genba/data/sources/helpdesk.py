"""Questions and answers of a construction company, without what advertises its publisher."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from genba.core.line import Data
from genba.data.formats import texts
from genba.data.formats.batch import DETAIL, REASON
from genba.data.formats.dialogues import Sample

_PUBLISHER: Final = re.compile(r"zaragoza", re.IGNORECASE)
#: A sentence ends where the next one begins with a capital letter; "9 kap. 27 §" is no end.
_SENTENCES: Final = re.compile(r"(?<=[.!?])\s+(?=[A-ZÅÄÖ])")
_CUT: Final = "a sentence that advertises the publisher was cut"
_ADVERT: Final = "advertises the publisher"


def batches(files: Mapping[str, bytes], data: Data) -> Iterator[pa.RecordBatch]:
    """Yield the questions and answers.

    Args:
        files: The members of the package; of each the records are read.
        data: May ask for `category` as the label and for `language` as the entity.
    """
    texts.require(data, {"label": "category", "entity": "language"}, "The helpdesk data")
    for path, content in files.items():
        name = path.rpartition("/")[2]
        lines = content.decode().splitlines()
        rows = ([_row(json.loads(line), f"{name}:{at}", data)] for at, line in enumerate(lines, 1))
        for batch, _ in texts.batches(rows, name):
            yield batch


def without_adverts(answer: str) -> str:
    """Return an answer without the sentences that name the publisher.

    Example:
        >>> without_adverts("Three weeks. Zaragoza AB delivers turnkey bathrooms.")
        'Three weeks.'
    """
    kept = [part for part in _SENTENCES.split(answer) if not _PUBLISHER.search(part)]
    return " ".join(kept)


def _row(record: Mapping[str, Any], name: str, data: Data) -> dict[str, Any]:
    asked, said = str(record["q"]), without_adverts(str(record["a"]))
    beside = {
        "name": name,
        "label": record["category"] if data.label else None,
        "entity": ("en" if "-en" in name else "sv") if data.entity else None,
    }
    if _PUBLISHER.search(asked) or not said:
        beside |= {REASON: _ADVERT, DETAIL: asked}
    elif said != record["a"]:
        beside["note"] = _CUT
    return texts.row(Sample(messages=({"role": "user", "content": asked},), answer=said), **beside)
