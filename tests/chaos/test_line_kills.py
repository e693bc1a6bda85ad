"""`genba run` killed with SIGKILL at moments spread over its whole duration, and run again.

What comes out is what an undisturbed run makes: the same dataset and the same model, every blob
whole, the ledger's chain unbroken, no stage done twice. The engine and so the package may differ:
they are chosen by measurement, and two measurements of one machine are never the same.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from genba.core.digest import digest_bytes, is_digest
from genba.store import signing
from genba.store.home import Store
from genba.ui.cli.example import LINE, rows

ROOT = Path(__file__).parents[2]
STAGES = ("prepare", "train", "evaluate", "optimize", "package")
# A sixth of the rows and one runtime: what is killed is the factory, not the search.
QUICK = ("--set", "train.budget.trials=2", "--set", "target.engines=['onnxruntime']")
EVERY = 6
KILLS = 6


@dataclass
class Place:
    """A folder with the example's line and data, and homes in which it runs."""

    folder: Path
    lasted_s: float = 0.0  # an undisturbed run, the whole command
    undisturbed: dict[str, Any] = field(default_factory=dict)

    def start(self, home: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GENBA")}
        return subprocess.Popen(
            [sys.executable, "-m", "genba", "run", "pump.toml", *QUICK, "--home", home, "--json"],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(self.folder / "source")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, home: str) -> dict[str, Any]:
        out, err = self.start(home).communicate(timeout=100)
        assert "Traceback" not in err
        answer: dict[str, Any] = json.loads(out)
        assert answer["exit_code"] == 0, answer
        return answer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The place, after an undisturbed run in a home of its own."""
    folder = tmp_path_factory.mktemp("line")
    # A copy, because the source is part of every stage key: an edit meanwhile is a new stage.
    for part in ("genba", "lines", "docs/errors"):
        shutil.copytree(ROOT / part, folder / "source" / part)
    head, *data = rows().splitlines()
    (folder / "pump.csv").write_text("\n".join([head, *data[::EVERY]]) + "\n")
    (folder / "pump.toml").write_text(LINE)
    place = Place(folder)
    begin = time.monotonic()
    place.undisturbed = place.run("undisturbed")
    place.lasted_s = time.monotonic() - begin
    return place


def made(answer: dict[str, Any]) -> dict[str, str]:
    results = answer["results"]
    return {"dataset": results["prepare"]["dataset"], "model": results["train"]["model"]}


def kill(process: subprocess.Popen[str], after_s: float) -> bool:
    """Kill the whole process group after so long; False when it had ended by itself."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def torment(place: Place, kills: int, seed: int) -> list[str]:
    """Kill the command at moments spread evenly over an undisturbed run, one after the other.

    Each start goes on with the first stage that is not done, and is killed when it should have
    come as far as the next moment.

    Returns:
        The homes it ran in: where a run comes to its end too early, the next begins in a new one.
    """
    chance = random.Random(seed)
    homes, hits = ["killed-0"], 0
    while hits < kills:
        moment_s = (hits + chance.random()) / kills * place.lasted_s
        if kill(place.start(homes[-1]), moment_s - done_s(place, homes[-1])):
            hits += 1
            assert_whole(place.folder / homes[-1])
        else:
            homes.append(f"killed-{len(homes)}")
    return homes


def done_s(place: Place, home: str) -> float:
    """Return how long the stages that are done in a home took in the undisturbed run."""
    with Store.open(place.folder / home) as store:
        names = {a.name for a in store.attempts.history() if a.state == "done"}
    stages = place.undisturbed["stages"]
    return float(sum(stage["seconds"] for stage in stages if stage["name"] in names))


def check(place: Place, home: str) -> None:
    """Run to the end and once more, and look for anything lost, torn or done twice."""
    answer = place.run(home)
    assert made(answer) == made(place.undisturbed)
    assert_whole(place.folder / home)
    with Store.open(place.folder / home, create=False) as store:
        finished = [e.body for e in store.ledger.events(kinds=["stage.finished"])]
        done = Counter(b["stage"] for b in finished if not b["reused"])
        assert done == dict.fromkeys(STAGES, 1)
        completed = [a.name for a in store.attempts.history() if a.state == "done"]
        assert sorted(completed) == sorted(STAGES)
        assert store.ledger.get("package", answer["package"]) is not None
        assert signing.read_checkpoints(store)[-1].seq == store.ledger.head()[0]
        assert [e.body["action"] for e in store.ledger.events(kinds=["deploy"])] == ["deploy"]
    again = place.run(home)
    assert all(stage["reused"] for stage in again["stages"])
    assert again["results"] == answer["results"]


def assert_whole(home: Path) -> None:
    """Nothing is half-written: the chain holds, every blob is its name, and none is missing."""
    with Store.open(home) as store:
        report = signing.verify(store)
        assert report.ok, report.reason
        names = set(store.blobs.digests())
        for digest in names:
            assert digest_bytes(store.blobs.path(digest).read_bytes()) == digest
        for kind in ("dataset", "model", "package"):
            for record in store.ledger.find(kind):
                assert digests_in(record.body) - recorded(store) <= names
        for attempt in store.attempts.history():
            result = store.attempts.result(attempt.key) or {}
            assert digests_in(result) - recorded(store) <= names, attempt.name


def recorded(store: Store) -> set[str]:
    kinds = ("line", "dataset", "run", "model", "package")
    return {record.id for kind in kinds for record in store.ledger.find(kind)}


def digests_in(value: Any) -> set[str]:
    """Return everything in a record that names a blob or another record."""
    if isinstance(value, dict):
        return set().union(*(digests_in(v) for k, v in value.items() if k != "fingerprint"))
    if isinstance(value, list):
        return set().union(*map(digests_in, value))
    return {value} if isinstance(value, str) and is_digest(value) else set()


def test_kills_at_moments_spread_over_the_run_change_nothing(place: Place) -> None:
    for home in torment(place, KILLS, seed=1):
        check(place, home)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_fifty_kills_change_nothing(place: Place) -> None:
    for home in torment(place, 50, seed=2):
        check(place, home)
