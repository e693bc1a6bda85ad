"""datatrove on the texts of a JSON Lines file: the same rules, in its own environment.

Usage: python datatrove_run.py TEXTS.jsonl FOLDER; prints one line of JSON.
"""

import json
import resource
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig


def used_s() -> float:
    """Return the CPU seconds used so far, imports included."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main(source: Path, folder: Path) -> None:
    before = used_s()
    config = MinhashConfig(
        hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5
    )
    kept, out = str(folder / "kept"), str(folder / "out")
    steps = [
        [
            JsonlReader(str(source.parent), glob_pattern=source.name),
            GopherQualityFilter(min_stop_words=0),
            GopherRepetitionFilter(),
            JsonlWriter(kept, compression=None),
        ],
        [
            JsonlReader(kept),
            MinhashDedupSignature(output_folder=str(folder / "sig"), config=config),
        ],
        [
            MinhashDedupBuckets(
                input_folder=str(folder / "sig"),
                output_folder=str(folder / "buckets"),
                config=config,
            )
        ],
        [
            MinhashDedupCluster(
                input_folder=str(folder / "buckets"),
                output_folder=str(folder / "remove"),
                config=config,
            )
        ],
        [
            JsonlReader(kept),
            MinhashDedupFilter(input_folder=str(folder / "remove")),
            PIIFormatter(),
            JsonlWriter(out, compression=None),
        ],
    ]
    for number, pipeline in enumerate(steps):
        LocalPipelineExecutor(
            pipeline=pipeline,
            tasks=14 if number == 2 else 1,
            workers=1,
            logging_dir=str(folder / f"logs{number}"),
        ).run()
    cpu_s = used_s() - before
    files = sorted(Path(out).glob("*.jsonl"))
    ids = [json.loads(line)["id"] for f in files for line in f.open(encoding="utf-8")]
    after = [
        json.loads(line)["id"] for f in sorted(Path(kept).glob("*.jsonl")) for line in f.open()
    ]
    (folder / "ids.json").write_text(json.dumps({"kept": ids, "filtered": after}))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_s": cpu_s, "memory_mib": memory}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
