"""Batches of texts, as every source of them hands them over.

`messages` is a JSON list of messages up to the last one of the user ("[]" of plain text), `answer`
and `rejected` are texts, `name` says where a row came from, `group` what it belongs together with.
`note` says, in the same few words each time, what the source did to the text.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
import pyarrow as pa

from genba.core.line import Data
from genba.core.problem import Problem
from genba.data.formats.batch import DETAIL, LINE, REASON
from genba.data.formats.dialogues import Sample, UnreadableError, samples

SCHEMA: Final = pa.schema(
    [
        ("messages", pa.string()),
        ("answer", pa.large_string()),
        ("rejected", pa.string()),
        ("weight", pa.float64()),
        ("name", pa.string()),
        ("group", pa.string()),
        ("label", pa.string()),
        ("entity", pa.string()),
        ("time", pa.string()),
        ("split", pa.string()),
        ("note", pa.string()),
        (LINE, pa.int64()),
        (REASON, pa.string()),
        (DETAIL, pa.string()),
    ]
)
NOT_AN_OBJECT: Final = "not a JSON object"
_EMPTY: Final = dict.fromkeys(SCHEMA.names)
_BATCH_ROWS: Final = 4_096
_BATCH_BYTES: Final = 8 << 20
_MOST_DETAIL: Final = 200


def row(sample: Sample, **beside: Any) -> dict[str, Any]:
    """Return a sample as a row; what is beside it are further columns by name."""
    return {
        **_EMPTY,
        "messages": as_json(sample.messages),
        "answer": sample.answer,
        "rejected": sample.rejected,
        "weight": sample.weight,
        **beside,
    }


def as_json(messages: Any) -> str:
    """Return messages as the text they are stored as; the same messages give the same text.

    Example:
        >>> as_json([{"role": "user", "content": "Grüße"}])
        '[{"role":"user","content":"Grüße"}]'
    """
    return json.dumps(list(messages), ensure_ascii=False, separators=(",", ":"))


def conversation(messages: str) -> list[dict[str, str]]:
    """Return messages as they were before they became text."""
    found: list[dict[str, str]] = msgspec.json.decode(messages)
    return found


def rows(record: Any, data: Data, *, name: str, line: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of one record; one that cannot be read is a row with a reason.

    Args:
        record: As it was read.
        data: Says under which keys label, entity and time are, and question and answer where
            they have unusual names (`inputs`, `output`).
        name: Where the record is, such as `faq.jsonl:12`.
        line: Its line in the file.

    Example:
        >>> found = rows({"q": "Why?", "a": "Because."}, Data(source="files:x"), name="x.jsonl:1")
        >>> found[0]["messages"], found[0]["answer"]
        ('[{"role":"user","content":"Why?"}]', 'Because.')
    """
    if not isinstance(record, Mapping):
        return [unreadable(NOT_AN_OBJECT, str(record), name, line)]
    question = data.inputs[0] if data.inputs else None
    try:
        found = samples(record, question, data.output)
        if data.label and len(found) == 1 and not found[0].messages:  # a text to be classified
            asked = {"role": "user", "content": found[0].answer}
            found = [replace(found[0], messages=(asked,), answer="")]
    except UnreadableError as error:
        return [unreadable(error.reason, error.detail, name, line)]
    beside = {
        "label": _word(record, data.label),
        "entity": _word(record, data.entity),
        "time": _word(record, data.time),
        LINE: line,
    }
    if len(found) == 1:
        return [row(found[0], name=name, **beside)]
    return [
        row(sample, name=f"{name}#{turn}", group=name, **beside)
        for turn, sample in enumerate(found, start=1)
    ]


def batches(
    found: Iterator[list[dict[str, Any]]], file: str
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield rows in batches of bounded size, each with the number of records before its end.

    Args:
        found: The rows of one record after the other.
        file: Named in the metadata of each batch.
    """
    schema = SCHEMA.with_metadata({"file": file})
    held: list[dict[str, Any]] = []
    size = done = 0
    for some in found:
        held += some
        size += sum(len(one["answer"] or "") + len(one["messages"] or "") for one in some)
        done += 1
        if len(held) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield pa.RecordBatch.from_pylist(held, schema=schema), done
            held, size = [], 0
    if held:
        yield pa.RecordBatch.from_pylist(held, schema=schema), done


def require(data: Data, known: Mapping[str, str], where: str) -> None:
    """Refuse a line that names a column which a source of texts does not have.

    Args:
        data: Of the line.
        known: Columns by what they are for: label, entity, time.
        where: What is read.

    Raises:
        Problem: G204.
    """
    for role in ("label", "entity", "time"):
        asked = getattr(data, role)
        if asked is not None and asked != known.get(role):
            raise Problem(
                "G204",
                f"{where} has no column {asked!r}.",
                where=f"data.{role}",
                why=f"It has {', '.join(known.values()) or 'questions and answers only'}.",
                tries=[
                    f'{role} = "{known[role]}"' if role in known else f"remove {role} from [data]"
                ],
            )


def _word(record: Mapping[str, Any], key: str | None) -> str | None:
    value = record.get(key) if key else None
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value)


def unreadable(reason: str, detail: str, name: str, line: int | None = None) -> dict[str, Any]:
    """Return a row that stands for a record which cannot be read, with the reason."""
    where = {"name": name, LINE: line}
    return {**_EMPTY, **where, REASON: reason, DETAIL: detail[:_MOST_DETAIL]}
