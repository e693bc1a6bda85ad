"""Two processes that train together."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from genba.learn.language.spread import Spread, spread
from genba.learn.language.tune import tune
from tests.unit.lang_train_parts import conversations, tiny_base
from tests.unit.test_lang_train_tune import FAST, effort

ROOT = Path(__file__).parents[2]
SETTINGS = {**FAST, "epochs": 2, "batch": 7}
CHILD = """
import sys
from pathlib import Path
import safetensors.numpy
from torch import distributed
from genba.learn.language.spread import Group, spread
from genba.learn.language.tune import tune
from genba.runs.effort import FileCheckpoint
from tests.unit.lang_train_parts import conversations, tiny_base
from tests.unit.test_lang_train_spread import SETTINGS
from tests.unit.test_lang_train_tune import effort

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
)
assert isinstance(spread(), Group)
mine = folder / str(rank)
mine.mkdir()
tuned = tune(
    tiny_base(mine), conversations(40), conversations(9, seed=9), {**SETTINGS, "save_s": 0},
    effort(FileCheckpoint(mine / "work", attempt=1)),
)
assert tuned.settings["processes"] == 2
assert (mine / "work").is_dir() == (rank == 0)  # one of them saves
safetensors.numpy.save_file(dict(tuned.arrays), mine / "arrays.safetensors")
distributed.destroy_process_group()
"""


def test_alone_nothing_is_exchanged() -> None:
    alone = spread()
    assert type(alone) is Spread
    gradient = torch.ones(3)
    alone.add_up(gradient)
    assert gradient.tolist() == [1, 1, 1]
    assert alone.sums(1.0, 2.0) == (1.0, 2.0)
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.least(4) == 4


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(rank)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for child in children:
        _, errors = child.communicate(timeout=100)
        assert child.returncode == 0, errors[-2000:]
    one, other = (
        safetensors.numpy.load_file(tmp_path / str(rank) / "arrays.safetensors") for rank in (0, 1)
    )
    alone = tune(
        tiny_base(tmp_path), conversations(40), conversations(9, seed=9), SETTINGS, effort()
    )
    for name, array in alone.arrays.items():
        assert np.array_equal(one[name], other[name]), name
        np.testing.assert_allclose(one[name], array, atol=1e-3)
