"""Documents of a line, read into the files of a package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from genba.core.codec import encode
from genba.core.digest import digest_bytes, digest_file, digest_json
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data.documents.held import QUESTIONS, Held, held
from genba.data.documents.index import files_of
from genba.data.documents.reading import Judge, read_all
from genba.data.documents.sources import open_source
from genba.edge.passages import ENCODER_FILE, PASSAGES_FILE, VECTORS_FILE
from genba.learn.encoder import MINILM, load_encoder
from genba.runs.progress import Progress, SilentProgress
from genba.store.home import Store
from genba.store.ledger import Record

KIND: Final = "documents"  # of records in the ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexed:
    """Documents as files of a package."""

    id: str
    files: dict[str, bytes]
    body: dict[str, Any]  # of the record


def digest_for(store: Store, line: Line) -> str:
    """Return what decides the files of a line's documents, "" where it has none."""
    sources = held(store, line)
    if not sources:
        return ""
    asked = questions_of(line)
    told = digest_file(asked) if asked is not None and asked.is_file() else str(asked or "")
    return digest_json([_encoder_of(line), told, [_print(one) for one in sources]])


def questions_of(line: Line) -> Path | None:
    """Return the file of questions that a line's search is measured with, if it names one."""
    named = str(line.options.get(QUESTIONS) or "")
    return Path(named).expanduser() if named else None


def files_for(store: Store, line: Line, progress: Progress | None = None) -> dict[str, bytes]:
    """Return the files of a package that hold a line's documents; none where it has none.

    Raises:
        Problem: As `index`.
    """
    made = index(store, line, progress or SilentProgress())
    return {} if made is None else made.files


def newest(store: Store, line: str) -> Record | None:
    """Return the record of a line's documents as they were read last."""
    return next(iter(store.ledger.find(KIND, line=line, limit=1)), None)


def index(store: Store, line: Line, progress: Progress) -> Indexed | None:
    """Read a line's documents and record what was read; what is known is not embedded again.

    Raises:
        Problem: G652 when a source is not there or has no documents, G653 when there are too many
            passages, G901 for a missing library, G902 or G222 for packages.
    """
    sources = held(store, line)
    if not sources:
        return None
    read = read_all(sources, _judge(), progress)
    graph = load_encoder(_encoder_of(line), progress)
    embed = resolve("part", "encoder")(graph).embed
    before = newest(store, line.name)
    known = {} if before is None else _kept(store, before)
    files, embedded = files_of(read, embed, digest_bytes(graph), progress, known)
    files[ENCODER_FILE] = graph
    body = {
        "files": {name: store.blobs.put(data) for name, data in files.items()},
        "sources": [encode(one) for one in sources],
        "fingerprints": {one.source: _print(one) for one in sources},
        "documents": len(read.documents),
        "passages": len(read.passages),
        "embedded": embedded,
        "refused": read.reasons(),
        "refusals": [encode(one) for one in read.refused[:200]],
    }
    id = digest_json([line.name, body["files"], body["sources"]])
    store.ledger.record(KIND, id, body, line=line.name)
    return Indexed(id=id, files=files, body=body)


def stale(store: Store, line: Line) -> list[str]:
    """Return the sources that are not in the newest index as they are now."""
    before = newest(store, line.name)
    known = {} if before is None else before.body.get("fingerprints", {})
    return [one.source for one in held(store, line) if known.get(one.source) != _print(one)]


def _print(one: Held) -> str:
    """Return what changes when a source, or who may see it, does; "" where it is not there."""
    try:
        return digest_json([encode(one), open_source(one.source).fingerprint()])
    except Problem:
        return ""


def made_of(store: Store, line: str, files: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Return the record of the documents that are among the files of a package, for its lineage."""
    record = newest(store, line)
    if record is None or PASSAGES_FILE not in files:
        return []
    same = record.body["files"][PASSAGES_FILE] == digest_bytes(files[PASSAGES_FILE])
    return [(KIND, record.id)] if same else []


def _kept(store: Store, record: Record) -> dict[str, bytes]:
    """Return the files of an earlier index, without the encoder; nothing where they are gone."""
    files = record.body["files"]
    wanted = {name: str(files[name]) for name in (PASSAGES_FILE, VECTORS_FILE)}
    if not all(store.blobs.has(digest) for digest in wanted.values()):
        return {}
    return {name: store.blobs.read(digest) for name, digest in wanted.items()}


def _judge() -> Judge:
    """Return the rails for what a language model reads: documents are data, not orders."""
    rails = resolve("part", "rails").open({}, {}, None)

    def judged(text: str) -> str:
        block = rails.passage(text)
        return "" if block is None else f"the rail {block.rail} closes on it"

    return judged


def _encoder_of(line: Line) -> str:
    return str(line.options.get("encoder") or MINILM)
