"""A home in which a line has run, was deployed, answered and was told what was true; no model."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.line import Line
from genba.core.linefile import parse_line
from genba.runs.software import software
from genba.stages.deploy import deploy
from genba.store.captures import OK, CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.ui.cli.app import run_command

Ask = Callable[..., tuple[int, dict[str, Any]]]

TEXT = """
name = "pump"
task = "sensor.anomaly"
[data]
source = "files:pump.csv"
time = "time"
entity = "pump"
output = "power"
checks = { power = { min = 0 } }
[train]
seed = 7
[rollout]
decide_after = 2
[retrain]
when = { drift = 0.2, labels = 3 }
"""
MACHINE = {"processor": "EPYC", "cores": 2.0, "instructions": ["avx2", "amx_bf16"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Factory:
    """The ids of what is in the home."""

    store: Store
    line: Line
    dataset: str
    model: str
    packages: tuple[str, str]
    run: str
    predictions: tuple[str, ...]


def measure(value: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": "", "method": "measured", **more}


def gate(name: str, value: float, *, passed: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "passed": passed,
        "measure": measure(value, low=value - 0.01, high=value + 0.01),
        "limit": "at least 0.9",
        "reason": f"{name} is {value}",
    }


def manifest(model: str, run: str, dataset: str) -> dict[str, Any]:
    window = {
        "name": "window",
        "datatype": "FP32",
        "shape": [-1, 2, 2],
        "role": "feature",
        "unit": "",
    }
    score = {"name": "score", "datatype": "FP32", "shape": [-1], "role": "score", "unit": ""}
    return {
        "format": 1,
        "line": "pump",
        "task": "sensor.anomaly",
        "model": model,
        "run": run,
        "dataset": dataset,
        "engine": {"name": "onnxruntime", "settings": {"threads": 1}},
        "signature": {"inputs": [window], "outputs": [score]},
        "settings": {
            "sensors": ["speed", "power"],
            "lags": 2,
            "step_ms": 600_000,
            "low": [None, None],
            "high": [None, None],
        },
        "entities": ["P-1"],
        "files": {"model.onnx": {"digest": "a" * 64, "size": 1_234}},
        "verdict": {"passed": True, "gates": [gate("r2", 0.97)]},
    }


def add_dataset(store: Store) -> str:
    path = store.path / "rows.parquet"
    pl.DataFrame({"row": list(range(100)), "power": [1.0] * 100}).write_parquet(path)
    segment = {"digest": store.blobs.put(path.read_bytes()), "rows": 100, "origin": "source"}
    path.unlink()
    sheet = {
        "rows": {"read": 102, "kept": 100},
        "files": ["pump.csv"],
        "columns": {
            "power": {"role": "output", "count": 100, "min": 0.5, "quantiles": {"0.5": 1.0}}
        },
    }
    body = {
        "line": "pump",
        "rows": 100,
        "rejected": {"duplicate": 2},
        "segments": [segment],
        "entities": ["P-1"],
        "columns": ["row", "power"],
        "sheet": store.blobs.put(json.dumps(sheet).encode()),
        "source": {"location": "pump.csv", "licence": "not stated", "generated": True},
    }
    dataset = digest_json(body)
    store.ledger.record("dataset", dataset, {"id": dataset, **body}, line="pump")
    return dataset


def add_run(store: Store, line: Line, dataset: str, model: str) -> str:
    ledger, run, line_id = store.ledger, "run-000000001aaaaaa", digest_json(encode(line))
    ledger.record("line", line_id, encode(line), line="pump")
    body = {"run": run, "reason": "asked", "line_digest": line_id}
    record = {**body, "code": software()}
    ledger.record("run", run, record, line="pump", inputs=[("line", line_id)])
    ledger.append("run.started", body, line="pump", subject=run)
    ledger.record(
        "model",
        model,
        {"candidate": "ridge", "trials": [{}, {}]},
        line="pump",
        inputs=[("dataset", dataset)],
    )
    for name, reused in (("prepare", False), ("train", False), ("train", True)):
        stage = {"run": run, "stage": name, "key": digest_json(name), "reused": reused}
        spent = {"seconds": 0.0 if reused else 2.0, "cpu_seconds": 0.0 if reused else 3.0}
        ledger.append("stage.finished", {**stage, **spent}, line="pump", subject=run)
    key = digest_json("optimize")
    claim = store.attempts.claim(key, name="optimize", run=run, owner="me", lease_s=60)
    done = {"run": run, "stage": "optimize", "key": key, "reused": False, "seconds": 0.0}
    event = ("stage.finished", {**done, "cpu_seconds": 0.0}, "pump", run)
    store.attempts.complete(key, "me", claim.attempt, {"machine": MACHINE}, event=event)
    finished = {
        "run": run,
        "outcome": "done",
        "reason": "asked",
        "stop": [],
        "seconds": 4.0,
        "cpu_seconds": 6.0,
        "package": None,
        "model": model,
        "dataset": dataset,
    }
    ledger.append("run.finished", finished, line="pump", subject=run)
    return run


def add_package(store: Store, body: dict[str, Any]) -> str:
    package = store.blobs.put(json.dumps(body, sort_keys=True).encode())
    inputs = [("model", body["model"]), ("dataset", body["dataset"])]
    store.ledger.record("package", package, body, line="pump", inputs=inputs)
    return package


def add_capture(store: Store, package: str, role: str = "stable") -> tuple[str, ...]:
    count = 3
    rows = CapturedRows(
        package=package,
        n=np.arange(count, dtype=np.int64),
        received_ms=np.full(count, time.time_ns() // 1_000_000, dtype=np.int64),
        role=[role] * count,
        entity=["P-1"] * count,
        time=[1_760_000_000_000 + i * 600_000 for i in range(count)],
        latency_us=np.full(count, 150, dtype=np.int64),
        status=[OK] * count,
        features={"window": np.ones((count, 2, 2), dtype=np.float32)},
        outputs={
            "score": np.array([0.2, 1.4, 0.9], dtype=np.float32),
            "alarm": np.array([False, True, False]),
        },
    )
    summary = {
        "role": role, "n": count, "errors": 0, "not_a_number": 0, "latency_ms_p50": 0.1,
        "latency_ms_p99": 0.2, "cpu_seconds": 0.03, "alarms": 1,
    }  # fmt: skip
    CaptureWriter(store, "pump", "server-x").write(
        Interval(from_ms=1, to_ms=2, packages={package: summary}, rows=[rows])
    )
    return tuple(f"server-x-{i}" for i in range(count))


@pytest.fixture
def factory(home: Path) -> Iterator[Factory]:
    with Store.open(home) as store:
        line = parse_line(TEXT)
        dataset = add_dataset(store)
        model = "b" * 64
        run = add_run(store, line, dataset, model)
        body = manifest(model, run, dataset)
        packages = tuple(
            add_package(store, {**body, "entities": entities})
            for entities in (["P-1"], ["P-1", "P-2"])
        )
        deploy(store, "pump", "deploy", packages[0], reason="first", by="genba run")
        predictions = add_capture(store, packages[0])
        yield Factory(
            store=store,
            line=line,
            dataset=dataset,
            model=model,
            packages=(packages[0], packages[1]),
            run=run,
            predictions=predictions,
        )


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def run(*argv: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run_command([*argv, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*argv: str) -> str:
        capsys.readouterr()
        run_command(list(argv))
        shown = capsys.readouterr()
        return shown.out + shown.err

    return run
