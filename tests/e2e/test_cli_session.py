"""A user's first hour: run, interrupt, serve, ask, trace, correct; in real processes where needed.

Commands that end by themselves run in this process, which is quicker and measures their coverage.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genba.ui.cli.app import run_command
from genba.ui.cli.run_report import EXIT_CODES

ROOT = Path(__file__).parents[2]
QUICK = ["--set", "train.budget.trials=3", "--set", "target.engines=['onnxruntime']"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example and a home in which it has run."""
    folder = tmp_path_factory.mktemp("session")
    code, _ = genba(folder, "init")
    assert code == 0
    text = (folder / "pump.csv").read_text().splitlines()
    (folder / "pump.csv").write_text("\n".join([text[0], *text[1::2]]) + "\n")  # half is enough
    code, answer = genba(folder, "run", "pump.toml", *QUICK)
    assert code == 0, answer["stop"]
    assert answer["deployed"] is True
    return folder


def command(folder: Path, *argv: str) -> list[str]:
    return [sys.executable, "-m", "genba", *argv, "--home", str(folder / ".genba")]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GENBA")}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def genba(folder: Path, *argv: str) -> tuple[int, dict[str, Any]]:
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        code = run_command([*argv, "--home", str(folder / ".genba"), "--json"])
    return code, json.loads(out.getvalue())


class Up:
    """`genba up` in the background."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.log = folder / "up.log"
        with self.log.open("wb") as log:
            argv = command(folder, "up", "--port", str(port), "--json")
            self.process = subprocess.Popen(
                argv, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.url = self.wait_for("Genba answers at ").split()[0]

    def wait_for(self, words: str) -> str:
        """Wait until it has said something, and return the rest of that line."""
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            _, found, rest = self.log.read_text().partition(words)
            if found and "\n" in rest:
                return rest.partition("\n")[0] or " "
            time.sleep(0.05)
        raise AssertionError(f"it never said {words!r}: {self.log.read_text()}")

    def stop(self) -> tuple[int, dict[str, Any]]:
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(out)


@pytest.fixture
def up(place: Path) -> Iterator[Up]:
    running = Up(place)
    yield running
    if running.process.poll() is None:
        running.stop()


def test_the_same_run_again_reuses_every_stage(place: Path) -> None:
    code, answer = genba(place, "run", "pump.toml", *QUICK)
    assert code == 0
    assert [s["reused"] for s in answer["stages"]] == [True] * 5
    assert answer["bill"]["seconds"] == 0
    assert answer["deployed"] is False


def test_a_run_tells_what_it_did(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ["--home", str(place / ".genba")]
    monkeypatch.chdir(place)
    assert run_command(["run", "pump.toml", *QUICK, *home, "--watch", "no"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for part in (
        "nothing has changed",
        "temperature_c is below -40",
        "derived",
        "isolation",  # the head of a narrow column may wrap
        "r2",
        "at least 0.9",
        "onnxruntime",
        "100 %",
        "prepare reused",
        "(modelled)",
        "genba up",
    ):
        assert part in shown.out, part


def test_a_line_that_misses_a_gate_stops_and_is_not_deployed(place: Path) -> None:
    code, answer = genba(
        place, "run", "pump.toml", *QUICK, "--set", "name=strict", "--set", "gates.r2.min=0.99999"
    )
    assert code == EXIT_CODES["refused"] == 1
    assert answer["outcome"] == "refused"
    assert any("r2" in reason for reason in answer["stop"])
    assert answer["package"] is None
    code, status = genba(place, "status", "strict")
    assert status["lines"][0]["rollout"]["stable"] is None
    assert "r2" in " ".join(status["lines"][0]["newest_run"]["stop"])


def test_a_run_by_its_name_needs_no_file(place: Path) -> None:
    assert genba(place, "run", "nothing-of-this-name")[1]["problem"]["code"] == "G101"
    code, answer = genba(place, "run", "pump")
    assert (code, answer["line"]) == (0, "pump")
    (place / "pump.toml").rename(place / "elsewhere.toml")
    try:
        code, answer = genba(place, "run", "pump")
        assert (code, answer["line"]) == (0, "pump")
        refused = genba(place, "run", "pump", "--set", "train.seed=1")[1]
        assert refused["problem"]["code"] == "G109"
    finally:
        (place / "elsewhere.toml").rename(place / "pump.toml")


def test_ctrl_c_stops_a_run_and_the_same_command_continues(tmp_path: Path) -> None:
    genba(tmp_path, "init")
    argv = [*command(tmp_path, "run", "pump.toml"), "--json"]
    process = subprocess.Popen(
        argv,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("evaluate"):  # the stage after train has begun, or just ended
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    answer = json.loads(out)
    assert answer["outcome"] == "cancelled"
    assert answer["next"] == ["genba run pump.toml"]
    code, again = genba(tmp_path, "run", "pump.toml", *QUICK[2:])
    assert code == 0
    reused = {s["name"]: s["reused"] for s in again["stages"]}
    assert reused["prepare"]
    assert reused["train"]


def test_up_serves_predicts_traces_and_takes_feedback(place: Path, up: Up) -> None:
    code, made = genba(
        place, "predict", "pump", "--input", "pump.csv", "--url", up.url, "--to", "out.csv"
    )
    assert code == 0
    assert made["rows"] == len(pl.read_csv(place / "out.csv"))
    assert 0 < sum(p["alarm"] for p in made["predictions"]) < made["rows"] / 10
    code, here = genba(place, "predict", "pump", "--input", "pump.csv", "--local", "stable")
    assert code == 0
    stable = here["predictions"][0]["package"]
    pairs = [  # the run of another test may be a canary now, and has answered some of the rows
        (served["score"], local["score"])
        for served, local in zip(made["predictions"], here["predictions"], strict=True)
        if served["package"] == stable
    ]
    assert len(pairs) > made["rows"] / 2
    served_scores, local_scores = zip(*pairs, strict=True)
    assert served_scores == pytest.approx(local_scores, rel=1e-4, nan_ok=True)
    chosen = next(p["prediction"] for p in made["predictions"] if p["alarm"])
    code, found = genba(place, "trace", chosen)
    assert code == 0
    assert found["prediction"]["values"]["alarm"] is True
    assert found["run"]["machine"]["cores"] > 0
    assert found["datasets"][0]["segments"][0]["last_row"] > 1_000
    code, report = genba(place, "feedback", "pump", "--prediction", chosen, "--value", "anomaly")
    assert (code, report["accepted"]) == (0, 1)
    code, queue = genba(place, "label", "pump")
    assert code == 0
    assert queue["queue"]
    assert chosen not in {item["prediction"] for item in queue["queue"]}
    with urllib.request.urlopen(f"{up.url}/v2/models/pump") as answer:
        assert json.load(answer)["name"] == "pump"


def test_up_ends_by_itself_when_asked_to(place: Path) -> None:
    code, answer = genba(place, "up", "--port", "0", "--seconds", "1.5")
    assert code == 0
    assert answer["lines"][0] == "pump"
    assert answer["restarts"] == 0
    assert answer["seconds"] >= 1.5


def test_up_starts_a_server_that_was_killed_again(place: Path, up: Up) -> None:
    before = children(up.process.pid)
    assert before
    for child in before:
        os.kill(child, signal.SIGKILL)
    up.wait_for("answers again")
    code, made = genba(place, "predict", "pump", "--input", "pump.csv", "--url", up.url)
    assert (code, made["rows"] > 1_000) == (0, True)
    code, answer = up.stop()
    assert (code, answer["restarts"]) == (0, 1)


def children(parent: int) -> list[int]:
    """The server below `genba up`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def test_a_second_up_on_the_same_port_says_so(place: Path, up: Up) -> None:
    port = up.url.rpartition(":")[2]
    code, answer = genba(place, "up", "--port", port, "--seconds", "5")
    assert code == 3
    assert port in answer["problem"]["what"] + answer["problem"]["where"]
    assert answer["problem"]["try"]
    code, stopped = up.stop()
    assert code == 0
    assert stopped["url"] == up.url


def test_without_a_server_predict_says_what_to_start(place: Path) -> None:
    code, answer = genba(
        place, "predict", "pump", "--input", "pump.csv", "--url", "http://127.0.0.1:9"
    )
    assert code == 3
    assert answer["problem"]["code"] == "G712"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("time,pump\n", "G204"),
        ("time,pump,speed_rpm,pressure_bar,temperature_c,power_kw\n", "G722"),
    ],
)
def test_rows_that_cannot_be_used(content: str, code: str, place: Path) -> None:
    (place / "bad.csv").write_text(content)
    exit_code, answer = genba(place, "predict", "pump", "--input", "bad.csv", "--local", "stable")
    assert answer["problem"]["code"] == code
    assert exit_code in (2, 3)
