"""What a LoRA adapter costs and how well it learns, against TRL's SFTTrainer, in one run."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy as safetensors
import torch

from benchmarks.machine import stamp
from benchmarks.tune.attention import attention
from benchmarks.tune.ours import examples_of
from genba.core.line import Data, Line
from genba.core.protocols import Array
from genba.edge.vocabulary import GgufVocabulary
from genba.learn.language.bases import Base, base_of
from genba.learn.language.folder import write_folder
from genba.learn.language.reference import Reference
from genba.runs.progress import ConsoleProgress
from genba.store.home import Store
from genba.testing.generated import ingest_line

HERE = Path(__file__).parent
REPEATS = 2
TRAIN, HELD_OUT = 48, 48
GIVEN: dict[str, Any] = {
    "base": "package:smollm2-135m",
    "batch": 8,
    "rank": 16,
    "alpha": 32,
    "learning_rate": 1e-3,
    "seed": 0,
}
OURS = {"genba": "shared", "genba, nothing shared": "apart"}
THEIRS = {"trl, defaults": "checkpointing", "trl, no checkpointing": "none"}


def conversations(base: Base) -> dict[str, list[tuple[list[int], int]]]:
    """Return the helpdesk's questions and answers as tokens, and where each answer begins."""
    line = Line(name="helpdesk", task="language.chat", data=Data(source="package:helpdesk-faq"))
    vocabulary = GgufVocabulary(base.file)
    found: dict[str, list[tuple[list[int], int]]] = {}
    with tempfile.TemporaryDirectory() as home, Store.open(Path(home) / "home") as store:
        view = ingest_line(line, store)
        for split, most in (("train", TRAIN), ("test", HELD_OUT)):
            rows = found.setdefault(split, [])
            for chunk in view.chunks(split):
                for messages, answer in zip(chunk["messages"], chunk["answer"], strict=True):
                    if answer and len(rows) < most:
                        prompt = vocabulary.prompt(json.loads(messages))
                        said = [*vocabulary.encode(answer), vocabulary.end[0]]
                        rows.append(([*prompt, *said], len(prompt)))
    return found


def once(command: list[str]) -> dict[str, Any]:
    """Run one way in a process of its own, with one thread."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def commands(folder: Path) -> dict[str, list[str]]:
    """Return how each way is run; TRL where PEERS_PYTHON names a Python that has it."""
    found = {name: [sys.executable, str(HERE / "ours.py"), str(folder)] for name in OURS}
    if peers := os.environ.get("PEERS_PYTHON"):
        script = str(HERE / "peers" / "trl_peer.py")
        found |= {name: [peers, script, str(folder)] for name in THEIRS}
    return found


def loss(base: Base, arrays: Mapping[str, Array], rows: list[tuple[list[int], int]]) -> float:
    """Return the held-out loss per token of an answer, in float32."""
    scored = Reference(base, arrays, GIVEN).score(examples_of(rows))
    return -float(np.mean(np.concatenate(scored)))


def measure(folder: Path, base: Base, rows: dict[str, Any]) -> dict[str, Any]:
    """Run every way in turn, and return medians and the held-out loss."""
    ways = commands(folder)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    read = sum(len(tokens) for tokens, _ in rows["train"])
    for i in range(REPEATS):
        for name, command in ways.items():
            output = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{i}"
            found = once([*command, str(output), {**OURS, **THEIRS}[name]])
            runs[name].append({**found, "output": str(output)})
            print(f"{name:24} {read / found['cpu_s']:7.1f} tokens per CPU s", flush=True)
    report: dict[str, Any] = {"base loss": loss(base, {}, rows["test"]), "ways": {}}
    for name, results in runs.items():
        cpu_s = statistics.median(r["cpu_s"] for r in results)
        arrays = safetensors.load_file(Path(results[0]["output"]) / "adapter_model.safetensors")
        report["ways"][name] = {
            "cpu_s": cpu_s,
            "tokens_per_cpu_s": read / cpu_s,
            "held_out_loss": loss(base, arrays, rows["test"]),
            **{k: v for k, v in results[0].items() if k in ("precision", "bf16", "weights")},
        }
        if "share_of_peak" in results[0]:
            for key in ("share_of_peak", "flops_per_cpu_s", "peak_flops_per_cpu_s"):
                report["ways"][name][key] = statistics.median(r[key] for r in results)
    return report


def main() -> None:
    base = base_of(GIVEN["base"], ConsoleProgress())
    rows = conversations(base)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(base.shape, base.file, base.arrays(), folder)
        (folder / "examples.json").write_text(json.dumps({**GIVEN, **rows}))
        found = measure(folder, base, rows)
    read = {split: sum(len(tokens) for tokens, _ in rows[split]) for split in rows}
    torch.set_num_threads(1)
    report = {**stamp(), "torch": torch.__version__, **GIVEN, "tokens": read, **found}
    report["attention"] = attention(base.shape)
    ours = report["ways"]["genba"]
    print(", ".join(f"{name} {value:.1f}" for name, value in report["attention"].items()))
    print(f"held-out loss of the base: {report['base loss']:.3f}")
    for way, result in report["ways"].items():
        ratio = ours["tokens_per_cpu_s"] / result["tokens_per_cpu_s"]
        print(
            f"{way:24} {result['tokens_per_cpu_s']:7.1f} tokens/CPU s, Genba {ratio:.2f} times, "
            f"held-out loss {result['held_out_loss']:.3f}"
        )
    (HERE / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
