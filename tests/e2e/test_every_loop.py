"""The whole loop, once for every task of the catalog, as a user and a fleet would drive it.

Run, killed and run again; served; traced; judged by people; the world changes and it is noticed;
retrained on what was served; tried as a canary; a bad package thrown out; a bad model refused.
Nothing here knows which task it drives.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.codec import decode
from genba.core.line import Budget, Line, Retrain, RollBackOn, Rollout, Target
from genba.core.lineschema import line_text
from genba.core.protocols import Array
from genba.core.resolve import names, resolve
from genba.core.task import Task
from genba.core.values import Event, Manifest
from genba.data.view import DatasetView
from genba.serve.client import Client
from genba.stages.deploy import deploy
from genba.store.captures import find_prediction
from genba.store.home import Store
from genba.ui.demo.drills import misbehaving
from genba.ui.demo.factory import Factory, ask

LINE = "loop"
BATCH = 32
PATIENCE_S = 240.0
MOST_BATCHES = 600
Condition = Callable[[], Any]


@dataclass
class Place:
    """A folder with the example of a task, and the homes it runs in."""

    task: Task
    line: Line
    folder: Path

    @classmethod
    def make(cls, name: str, folder: Path) -> "Place":
        task: Task = resolve("task", name)()
        example = task.example(folder)
        line = replace(
            example,
            name=LINE,
            target=example.target if example.target.engines else Target(engines=("onnxruntime",)),
            rollout=Rollout(
                decide="auto",
                canary=0.5,
                decide_after=40,
                roll_back_on=RollBackOn(latency_ms_p99=5_000.0),
            ),
            retrain=Retrain(when={"drift": 0.2}, label_noise=0.5),
        )
        line = replace(line, train=replace(line.train, budget=Budget(minutes=1, trials=2)))
        (folder / f"{LINE}.toml").write_text(line_text(line))
        return cls(task, line, folder)

    def start(self, home: str, *more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "genba", "run", f"{LINE}.toml", *more]
        return subprocess.Popen(
            [*command, "--home", str(self.folder / home), "--json", "--watch", "no"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, home: str, *more: str) -> dict[str, Any]:
        out, err = self.start(home, *more).communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err
        answer: dict[str, Any] = json.loads(out)
        assert "problem" not in answer, answer
        return answer


@pytest.fixture(params=sorted(names("task")))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place.make(request.param, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_loop(place: Place) -> None:
    begin = time.monotonic()
    first = place.run("home")
    lasted = time.monotonic() - begin
    assert (first["outcome"], first["deployed"]) == ("done", True)
    check_resume(place, first, lasted)
    home = place.folder / "home"
    with Store.open(home) as store, serving(home) as client:
        traffic = Traffic(place, store, client)
        package = str(first["package"])
        check_served_and_traced(traffic, package)
        check_people(traffic)
        check_drift_and_retraining(traffic)
        check_canary(traffic)
        check_roll_back(traffic)
    check_refusal(place, next(iter(first["results"]["evaluate"]["measures"])))


def check_resume(place: Place, undisturbed: Mapping[str, Any], lasted: float) -> None:
    """Killed half way and run again, the same model comes out."""
    process = place.start("killed")
    try:
        process.wait(lasted / 2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = place.run("killed")
    for stage, name in (("prepare", "dataset"), ("train", "model")):
        assert again["results"][stage][name] == undisturbed["results"][stage][name]
    third = place.run("killed")
    assert all(stage["reused"] for stage in third["stages"])


class Traffic:
    """Sends the test rows again and again, every round as if time had gone on."""

    def __init__(self, place: Place, store: Store, client: Client) -> None:
        self.place, self.store, self.client = place, store, client
        self.sent = 0
        self.predictions: list[str] = []
        self.roles: list[str] = []
        self._stream = self._samples()

    def send(self, *, disturbed: bool = False) -> None:
        """Send one batch."""
        tensors, entities, times = next(self._stream)
        if disturbed:
            tensors = dict(self.place.task.disturbed(tensors))
        by_name = bool(entities) and "entity" in tensors
        given = {n: t for n, t in tensors.items() if n not in ("time", "entity", "given")}
        answer = self.client.infer(LINE, given, entities=entities if by_name else None, times=times)
        self.sent += len(times)
        self.predictions += answer.predictions
        self.roles.append(answer.role)

    def until(self, condition: Condition, *, disturbed: bool = False) -> Any:
        """Send until something holds, and return it."""
        end = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < end, self.events()
            self.send(disturbed=disturbed)
            time.sleep(0.02)
        return found

    def events(self, *kinds: str, after: int = 0) -> list[Event]:
        return self.store.ledger.events(line=LINE, kinds=kinds or None, after=after)

    def first(self, kind: str, after: int = 0, **body: Any) -> Event | None:
        found = (
            event
            for event in self.events(kind, after=after)
            if all(event.body.get(name) == value for name, value in body.items())
        )
        return next(found, None)

    def manifest(self) -> Manifest:
        stable = self.client.line(LINE)["stable"]
        return decode(Manifest, self.store.ledger.get("package", stable["package"]))

    def _samples(self) -> Iterator[tuple[dict[str, Array], list[str], Array]]:
        manifest, line = self.manifest(), self.place.line
        view = DatasetView.open(self.store, manifest.dataset, line)
        last = max(int(c["time"].max()) for split in SPLITS for c in view.chunks(split))
        first = min(int(c["time"].min()) for split in SPLITS for c in view.chunks(split))
        for turn in range(1, 1_000):
            for columns in view.chunks("test", rows=512):
                samples = self.place.task.samples(columns, manifest.settings)
                times = samples.time + turn * (last - first + 3_600_000)
                for start in range(0, len(times), BATCH):
                    part = slice(start, start + BATCH)
                    named = [f"live-{turn}-{e}" for e in samples.entity[part].tolist()]
                    yield (
                        {name: tensor[part] for name, tensor in samples.tensors.items()},
                        named if line.data.entity else [],
                        times[part],
                    )


SPLITS = ("train", "calibrate", "test")


def serving(home: Path) -> "Served":
    return Served(home)


class Served:
    """`genba up` for the length of a block."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __enter__(self) -> Client:
        self.factory = Factory(self.home, 0)
        self.client = Client(self.factory.url)
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.factory.stop()


def check_served_and_traced(traffic: Traffic, package: str) -> None:
    for _ in range(3):
        traffic.send()
    newest = traffic.predictions[-1]
    waited = time.monotonic() + PATIENCE_S
    while not (found := find_prediction(traffic.store, newest)):
        assert time.monotonic() < waited
        time.sleep(0.1)
    assert found[1]["package"] == package
    trace = ask(traffic.store.path, "trace", newest)
    assert trace["package"]["id"] == package
    assert trace["datasets"][0]["segments"]
    assert trace["run"]["bill"]["joules"]["value"] > 0
    assert trace["prediction"]["id"] == newest


def check_people(traffic: Traffic) -> None:
    """Feedback is taken, counted, and the queue asks for more."""
    task, manifest = traffic.place.task, traffic.manifest()
    words = task.corrections(manifest.classes)
    rows = [
        {"prediction": prediction, "value": words[n % len(words)], "author": "tester"}
        for n, prediction in enumerate(traffic.predictions[:10])
    ]
    report = traffic.client.feedback(LINE, rows)
    assert report["accepted"] == len(rows), report
    nonsense = traffic.client.feedback(LINE, [{"prediction": rows[0]["prediction"], "value": "?!"}])
    assert len(nonsense["rejected"]) == 1
    asked = ask(traffic.store.path, "label", LINE)
    told = {row["prediction"] for row in rows}
    assert asked["queue"], asked
    assert not told & {item["prediction"] for item in asked["queue"]}


def check_drift_and_retraining(traffic: Traffic) -> None:
    """A changed world is noticed, and a challenger learns from what was served and said."""
    trigger = traffic.until(lambda: traffic.first("trigger"), disturbed=True)
    assert "drift" in str(trigger.body["reason"])
    started = traffic.until(lambda: traffic.first("run.started", after=trigger.seq), disturbed=True)
    finished = traffic.until(
        lambda: traffic.first("run.finished", after=started.seq, run=started.subject),
        disturbed=True,
    )
    assert finished.body["outcome"] in ("done", "refused"), finished.body
    dataset = traffic.store.ledger.get("dataset", str(finished.body["dataset"]))
    assert dataset is not None
    live = [s for s in dataset["segments"] if s["origin"] == "live"]
    assert sum(s["rows"] for s in live) > 0
    view = DatasetView.open(traffic.store, dataset["id"], traffic.place.line).part("live")
    taught = [c["label"] for s in (*SPLITS, "purged") for c in view.chunks(s)]
    changed = np.isfinite(np.concatenate(taught)).any()
    assert changed or traffic.place.line.data.label is None
    if finished.body["outcome"] == "refused":
        assert finished.body["stop"]


def check_canary(traffic: Traffic) -> None:
    """A challenger gets its share of the traffic and is decided upon."""
    home = traffic.store.path
    settle(traffic)
    seq = traffic.store.ledger.head()[0]
    answer = traffic.place.run(home.name, "--set", "train.seed=11")
    if answer["outcome"] == "refused":  # worse than what production has become: that is an answer
        assert answer["stop"]
        return
    canary = traffic.until(lambda: traffic.first("deploy", after=seq, action="canary"))
    traffic.until(
        lambda: next(
            (
                e
                for e in traffic.events("deploy", after=canary.seq)
                if e.body["action"] in ("promote", "roll_back")
            ),
            None,
        )
    )
    assert "canary" in traffic.roles


def check_roll_back(traffic: Traffic) -> None:
    """A package that stops giving numbers is thrown out, and the one before it serves again."""
    settle(traffic)
    before = traffic.client.line(LINE)["stable"]["package"]
    twin = misbehaving(traffic.store, before, {"after": 3, "not_a_number": True})
    with traffic.store.transaction():
        for action in ("shadow", "promote"):
            deploy(traffic.store, LINE, action, twin, reason="drill", by="test")
    seq = traffic.store.ledger.head()[0]
    traffic.until(lambda: traffic.first("deploy", after=seq, action="roll_back"))
    traffic.until(lambda: traffic.client.line(LINE)["stable"]["package"] == before)
    verdict = traffic.store.ledger.verify()
    assert verdict.ok, verdict


def settle(traffic: Traffic) -> None:
    """Go on until no challenger is trained or judged."""

    def idle() -> bool:
        placed = traffic.client.line(LINE)
        started = len(traffic.events("run.started"))
        finished = len(traffic.events("run.finished"))
        return not placed["canary"] and not placed["shadow"] and started == finished

    traffic.until(idle)


def check_refusal(place: Place, gate: str) -> None:
    """A gate that cannot be passed stops the line, with the reason."""
    stated = place.line.gates.get(gate)
    limit = "max = -1e9" if stated and stated.max is not None else "min = 1e9"
    answer = place.run("home", "--set", f"gates.{gate}={{ {limit} }}")
    assert answer["outcome"] == "refused"
    assert gate in " ".join(answer["stop"])
