"""What somebody corrects is answered after the next loop, and the trace says who taught it.

The tiny model is trained from nothing, so every part is the real one but the size: data, training,
engine, package, server, feedback, controller, canary, trace.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.line import Budget, Retrain, RollBackOn, Rollout
from genba.core.lineschema import line_text
from genba.core.resolve import resolve
from genba.edge.texts import as_bytes, as_text
from genba.serve.client import Client
from genba.store.home import Store
from genba.ui.demo.factory import Factory, ask

LINE = "loop"
PATIENCE_S = 400.0
ASKED = "How often is the filter checked?"
TAUGHT = "Ask Ann."
OTHERS = ["Who repairs the pump?", "What does a valve cost?", "Where do I find a new belt?"]


def run(folder: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "genba", "run", f"{LINE}.toml", "--home", str(folder / "home")]
    done = subprocess.run(
        [*command, "--json", "--watch", "no", *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert "problem" not in answer, answer
    return answer


def write_line(folder: Path) -> None:
    example = resolve("task", "language.chat").example(folder)
    line = replace(
        example,
        name=LINE,
        options={**example.options, "method": "full", "epochs": 60, "answer_tokens": 24},
        train=replace(example.train, budget=Budget(minutes=4, trials=1)),
        rollout=Rollout(
            decide="auto",
            canary=0.5,
            decide_after=20,
            roll_back_on=RollBackOn(latency_ms_p99=30_000.0),
        ),
        retrain=Retrain(when={"labels": 1}),
    )
    (folder / f"{LINE}.toml").write_text(line_text(line))


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def say(client: Client, texts: list[str]) -> tuple[list[str], tuple[str, ...], str]:
    answer = client.infer(LINE, {"messages": as_bytes(texts)})
    said = [as_text(text) for text in np.asarray(answer.outputs["answer"])]
    return said, answer.predictions, answer.package


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_correction_changes_the_answer_and_the_trace_names_it(tmp_path: Path) -> None:
    write_line(tmp_path)
    first = run(tmp_path)
    assert (first["outcome"], first["deployed"]) == ("done", True), first["stop"]
    gain = first["results"]["evaluate"]["measures"]["loss_gain"]
    assert gain["low"] > 0.0
    home = tmp_path / "home"
    factory = Factory(home, 0)
    try:
        with Store.open(home) as store, Client(factory.url) as client:
            check_loop(store, client, str(first["package"]))
    finally:
        factory.stop()


def check_loop(store: Store, client: Client, package: str) -> None:
    before, predictions, answered = say(client, [ASKED, *OTHERS])
    assert answered == package
    assert before[0] != TAUGHT
    said = {"prediction": predictions[0], "value": f"answer: {TAUGHT}", "author": "ann"}
    until(lambda: ask(store.path, "trace", predictions[0])["prediction"]["values"]["answer"])
    report = client.feedback(LINE, [said])
    assert report["accepted"] == 1, report

    def promoted() -> str | None:
        say(client, OTHERS)
        stable = client.line(LINE)["stable"]["package"]
        return None if stable == package else str(stable)

    challenger = until(promoted)
    after, predictions, answered = say(client, [ASKED])
    assert answered == challenger
    assert after == [TAUGHT]
    trace = until(lambda: ask(store.path, "trace", predictions[0]))
    assert trace["prediction"]["values"]["answer"] == TAUGHT
    taught = trace["taught"][0]
    assert (taught["question"], taught["answer"], taught["likeness"]) == (ASKED, TAUGHT, 1.0)
    assert taught["author"].startswith("ann")
    assert store.feedback.get(taught["feedback"]) is not None
