"""Genba on the texts of a JSON Lines file: curated, split, stored and recorded.

Usage: python ours.py TEXTS.jsonl FOLDER; prints one line of JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import polars as pl

from genba.core.line import Data, Line
from genba.data.sources.files import FileSource
from genba.data.texts.ingest import ingest
from genba.runs.progress import SilentProgress
from genba.store.home import Store


def main(path: Path, folder: Path) -> None:
    line = Line(name="bench", task="language.chat", data=Data(source=f"files:{path}"))
    source = FileSource(str(path), line.data)
    source.modality = "text"
    ids = [json.loads(row)["id"] for row in path.open(encoding="utf-8")]
    before = time.process_time()
    with Store.open(folder / "home") as store:
        version = ingest(source, line, store, SilentProgress())
        cpu_s = time.process_time() - before
        left_out = {}
        if version.rejects:
            rows = pl.read_parquet(store.blobs.path(version.rejects))
            left_out = dict(zip(rows["row"].to_list(), rows["reason"].to_list(), strict=True))
    kept = [id for at, id in enumerate(ids) if at not in left_out]
    told = {ids[at]: reason for at, reason in left_out.items()}
    (folder / "ids.json").write_text(json.dumps({"kept": kept, "rejected": told}))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_s": cpu_s, "memory_mib": memory, "rejected": version.rejected}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
