"""Genba's training over the same conversations. Usage: ours.py FOLDER OUTPUT shared|apart."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.numpy as safetensors

from genba.learn.language import passes
from genba.learn.language.bases import base_of
from genba.learn.language.examples import Example
from genba.learn.language.layout import lay_out
from genba.learn.language.tune import tune
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress


def main() -> None:
    folder, output, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    given = json.loads((folder / "examples.json").read_text())
    if how == "apart":
        setattr(passes, "lay_out", partial(lay_out, share=False))  # noqa: B010  # for this run only
    settings = {
        "batch": given["batch"],
        "learning_rate": given["learning_rate"],
        "rank": given["rank"],
        "alpha": given["alpha"],
        "epochs": 1.0,
        "warmup": 0,  # TRL has none by default
        "threads": 1,
    }
    base = base_of(given["base"], SilentProgress())
    tuned = tune(
        base, examples_of(given["train"]), [], settings, Effort.simple(given["seed"], minutes=60)
    )
    output.mkdir()
    arrays = {name: np.ascontiguousarray(array) for name, array in tuned.arrays.items()}
    safetensors.save_file(arrays, output / "adapter_model.safetensors")
    sys.stdout.write(json.dumps({**tuned.measures, "precision": tuned.settings["precision"]}))


def examples_of(rows: list[tuple[list[int], int]]) -> list[Example]:
    """Return conversations as they stand in the file."""
    return [
        Example(tokens=np.array(tokens, np.int32), answer=np.arange(len(tokens)) >= begin)
        for tokens, begin in rows
    ]


if __name__ == "__main__":
    main()
