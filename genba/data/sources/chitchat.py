"""Conversations of people who did not know each other; the second speaker answers."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from genba.core.line import Data
from genba.data.formats import texts
from genba.data.formats.dialogues import UnreadableError, samples


def batches(files: Mapping[str, bytes], data: Data) -> Iterator[pa.RecordBatch]:
    """Yield every answer of the second speaker with what was said before it.

    Args:
        files: The one member of the package.
        data: May ask for `time`: when the last message before the answer was sent.
    """
    texts.require(data, {"time": "time"}, "The chit-chat data")
    for path, content in files.items():
        name = path.rpartition("/")[2]
        rows = (_rows(talk, f"{name}:{id[:8]}", data) for id, talk in json.loads(content).items())
        for batch, _ in texts.batches(rows, name):
            yield batch


def _rows(talk: Mapping[str, Any], name: str, data: Data) -> list[dict[str, Any]]:
    """Return the rows of a conversation; what one says in several pieces is one message."""
    said, times = [], []
    for turn, pieces in enumerate(talk["messages"]):
        role = "assistant" if turn % 2 else "user"
        said.append({"role": role, "content": "\n".join(str(p["text"]) for p in pieces)})
        times.append(str(pieces[-1]["timestamp"]) if pieces else None)
    try:
        found = samples({"messages": said})
    except UnreadableError as error:
        return [texts.unreadable(error.reason, error.detail, name)]
    return [
        texts.row(
            sample,
            name=f"{name}#{turn}",
            group=name,
            time=times[len(sample.messages) - 1] if data.time else None,
        )
        for turn, sample in enumerate(found, start=1)
    ]
