"""What the serving benchmark reports, without running it; and once, with ours, echo and raw."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serve import asks, models, page
from benchmarks.serve.flood import read_head
from benchmarks.serve.goals import goals, peers
from benchmarks.serve.latencies import disturbed_s, phase, recovery_s, windows
from benchmarks.serve.results import Results
from benchmarks.serve.servers import SERVERS

ROOT = Path(__file__).parents[2]


def cell(server_us: float, **more: Any) -> dict[str, Any]:
    """A cell whose every number follows from the CPU per request."""
    return {
        "configuration": "",
        "model": "tab",
        "form": "binary",
        "clients": 64,
        "requests_per_s": 1e6 / server_us,
        "requests_per_s_range": [1.0, 2.0],
        "p50_ms": server_us / 10,
        "p99_ms": server_us,
        "cpu_us": server_us,
        "requests": 1_000,
        "refused": 0,
        "broken": 0,
        "late": 0,
        "foreign_cores": 0.0,
        "stolen_cores": 0.0,
        "repeats": 3,
        **more,
    }


def a_report(**changes: Any) -> dict[str, Any]:
    loads: dict[str, list[dict[str, Any]]] = {
        "ours": [cell(20.0), cell(20.0, clients=1), cell(30.0, form="json")],
        "echo": [cell(10.0)],
        "mlserver": [
            cell(2_000.0, form="json"),
            cell(1_000.0, form="json", configuration="adaptive batching"),
            cell(1_000.0, form="json", clients=1),
        ],
        "torchserve": [cell(250.0)],
    }
    servers = {
        name: {
            "title": server.title,
            "states": {"": "measured" if name in loads else "not installed: no | such package"},
            "processes": {},
            "loads": loads.get(name, []),
        }
        for name, server in SERVERS.items()
    }
    machine = {"processor": "P", "memory_mib": 2_048, "system": "S", "python": "3"}
    return {
        "measured": "2026-01-01",
        "machine": machine,
        "cores": 2,
        "quick": False,
        "runtime": "onnxruntime==1",
        "foreign_cores_before": 0.0,
        "servers": servers,
        "raw": {},
        "overload": {},
        "swap": {},
        "growth": {},
        "store": {},
        **changes,
    }


def test_goals_are_held_against_the_best_of_the_peers() -> None:
    found = goals(a_report())
    best, mlserver, quick = found[:3]
    assert best.measured.startswith("50,000 against 4,000 of TorchServe")
    assert best.holds
    assert "50.0 times" in mlserver.measured
    assert quick.measured.startswith("2.000 ms against 100.000 ms of MLServer")
    assert [goal.holds for goal in found if goal.measured == "not measured"] == [None] * 7
    assert [p.configuration for p in peers(a_report(), "tab", 64)] == ["", "adaptive batching"]


def test_a_goal_that_does_not_hold_says_why() -> None:
    report = a_report()
    report["servers"]["torchserve"]["loads"] = [cell(30.0)]
    report["servers"]["ours"]["loads"][0] |= {"foreign_cores": 1.2, "refused": 3}
    goal = goals(report)[0]
    assert goal.holds is False
    assert "2.0 times the CPU of the bare echo" in goal.why
    assert "others used 1.2 cores" in goal.why
    assert "3 of 1,000 requests were refused" in goal.why


def test_the_page_shows_what_was_not_installed_and_what_does_not_hold() -> None:
    report = a_report()
    report["goals"] = [goal.to_json() for goal in goals(report)]
    text = "\n".join(page.whole(report))
    assert "not installed: no / such package" in text
    assert "| **Genba** | binary |" in text
    assert "TorchServe 0.12.0" in "\n".join(page.short(report))


def test_an_interrupted_run_goes_on_and_a_finished_one_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "cells.json"
    Results(path, None).put("ours||tab", "1", {"n": 1})
    assert Results(path, None).get("ours||tab", "1") == {"n": 1}
    assert Results(path, None).get("ours||tab", "2") is None
    Results(path, frozenset({"raw"})).put("raw|all", "1", 2)
    again = Results(path, frozenset({"raw"}))
    assert again.get("ours||tab", "1") == {"n": 1}
    assert again.get("raw|all", "1") is None
    again.finish()
    assert Results(path, None).get("ours||tab", "1") is None


def test_a_refusal_and_a_late_answer_are_no_goodput() -> None:
    latency, status = np.array([1.0, 60.0, 2.0, 9.0]), np.array([200, 200, 503, 0])
    found = phase(latency, status, 2.0, 50.0)
    assert found["good_per_s"] == 0.5
    assert found["answered_per_s"] == 1.0
    assert found["refused_p99_ms"] == 2.0
    assert found["statuses"] == {"0": 1, "200": 2, "503": 1}


def test_windows_find_the_disturbance_and_its_end() -> None:
    due = np.arange(0, 2, 0.01)
    latency = np.where((due >= 0.5) & (due < 0.8), 50.0, 1.0)
    found = windows(due, latency, np.full(len(due), 200), 0.1)
    assert disturbed_s(found, 0.0, 2.0, 1.0, 0.1) == pytest.approx(0.3)
    assert disturbed_s(found, 1.0, 2.0, 1.0, 0.1) == 0.0
    assert recovery_s(found, 0.5, 1.0) == pytest.approx(0.3)
    assert recovery_s(found, 1.9, 0.1) is None


def test_every_form_of_a_question_carries_the_same_numbers() -> None:
    x = models.question("tab")
    for maker in (asks.oip_json, asks.plain_json, asks.row_json):
        body = json.loads(maker("tab", x).body)
        sent = body["x"] if "x" in body else body["inputs"][0]["data"]
        assert np.array_equal(np.array(sent, dtype=np.float32).ravel(), x.ravel())
    assert asks.raw("tab", x).body in asks.oip_binary("tab", x).body
    answer = asks.oip_json("tab", x).read({}, b'{"outputs":[{"data":[1,2]}]}')
    assert answer.tolist() == [1.0, 2.0]


def test_the_generator_reads_heads() -> None:
    assert read_head(b"HTTP/1.1 503 Busy\r\nX: y\r\ncontent-length: 7") == (503, 7)
    assert read_head(b"nonsense") == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_harness_measures_ours_echo_and_raw(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.serve.run", "--quick"]
    command += ["--only", "ours,echo,raw,overload,swap", "--report", str(report)]
    done = subprocess.run(
        [*command, "--cells", str(tmp_path / "cells.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    for name in ("ours", "echo"):
        assert set(found["servers"][name]["states"].values()) == {"measured"}, done.stderr
    cells = {(c["model"], c["form"], c["clients"]): c for c in found["servers"]["ours"]["loads"]}
    assert len(cells) == 12
    assert all(c["requests"] > 0 for key, c in cells.items() if key[0] == "tab")
    assert found["raw"]["tab"][0]["rows_per_s"] > 0
    assert found["swap"]["tab"]["requests"] > 0
    assert found["overload"]["cnn"]["alive"]
    # An overload that this machine could not make is one goal that says so, instead of four.
    made = [found["overload"][m].get("times", 0) >= 9 for m in ("cnn", "tab")]
    assert len(found["goals"]) == 13 + sum(4 if enough else 1 for enough in made)
