"""How fast a language model writes, by engine, number format and load, beside bare engines."""

import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decode.rivals import SLOTS, GenAi, Llama, Ours
from benchmarks.machine import stamp
from genba.edge.vocabulary import GgufVocabulary
from genba.learn.language.bases import base_of
from genba.learn.language.export import write_gguf
from genba.runs.progress import ConsoleProgress
from genba.targets.probe import load_average

HERE = Path(__file__).parent
BASE = "package:smollm2-135m"
LOADS = (1, 4, 16)
MOST = 64
REPEATS = 3
QUESTIONS = (
    "What is the capital of Japan, and what is it known for?",
    "How do I boil an egg so that the yolk stays soft?",
    "Tell me in a few words why the moon has phases.",
    "The pump of the third line stands still. What should I look at first?",
)


def bandwidth_gb_s(threads: int) -> float:
    """Return how fast so many threads read memory that no cache holds, in 10^9 bytes per second."""
    parts = [np.ones(32_000_000, dtype=np.float32) for _ in range(threads)]
    best = 0.0
    for read in (np.sum, np.max, np.min):
        for _ in range(4):
            running = [threading.Thread(target=read, args=(part,)) for part in parts]
            begin = time.perf_counter()
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            seconds = time.perf_counter() - begin
            best = max(best, sum(part.nbytes for part in parts) / seconds / 1e9)
    return best


def engines(files: dict[str, bytes], threads: int) -> dict[str, tuple[Any, int]]:
    """Return every engine with the bytes of weights that a step reads."""
    eight, four = len(files["q8_0"]), len(files["q4_0"])
    cache = {"threads": threads, "slots": SLOTS, "guesses": 0}
    llama = {"threads": threads, "slots": SLOTS, "context": 512}
    return {
        "openvino-genai, q8_0 file": (GenAi(files["q8_0"], threads), eight),
        "openvino-genai, q4_0 file": (GenAi(files["q4_0"], threads), four),
        "llama.cpp, q8_0": (Llama(files["q8_0"], threads), eight),
        "llama.cpp, q4_0": (Llama(files["q4_0"], threads), four),
        "genba openvino-talk int8": (
            Ours(files["q8_0"], "openvino-talk", {**cache, "weights": "int8"}), eight * 32 // 34,
        ),
        "genba openvino-talk q8_0": (
            Ours(files["q8_0"], "openvino-talk", {**cache, "weights": "q8_0"}), eight,
        ),
        "genba openvino-talk int8, guesses": (
            Ours(files["q8_0"], "openvino-talk", {**cache, "weights": "int8", "guesses": 4}),
            eight * 32 // 34,
        ),
        "genba openvino-talk int4": (
            Ours(files["q4_0"], "openvino-talk", {**cache, "weights": "int4"}), four,
        ),
        "genba llama-cpp, q8_0": (Ours(files["q8_0"], "llama-cpp", llama), eight),
    }  # fmt: skip


def once(engine: Any, prompts: list[list[int]]) -> dict[str, float]:
    """Write all answers at once and return what it took."""
    cpu, begin = time.process_time(), time.perf_counter()
    first = engine.write(prompts, MOST)
    seconds, spent = time.perf_counter() - begin, time.process_time() - cpu
    written = len(prompts) * MOST
    return {
        "tokens_per_s": written / seconds,
        "tokens_per_cpu_s": written / spent,
        "first_token_s": statistics.median(first),
    }


def measure(files: dict[str, bytes], threads: int) -> dict[str, Any]:
    """Measure every engine at every load; rounds are interleaved, the best of each is kept."""
    words = GgufVocabulary(files["q8_0"])
    prompts = [
        words.prompt([{"role": "user", "content": f"{QUESTIONS[n % 4]} Part {n}."}])
        for n in range(max(LOADS))
    ]
    opened = engines(files, threads)
    for engine, _ in opened.values():
        engine.write(prompts, 2)  # the prompts are known to all: this is about writing
    runs: dict[str, dict[int, list[dict[str, float]]]] = {
        name: {load: [] for load in LOADS} for name in opened
    }
    for _ in range(REPEATS):
        for load in LOADS:
            for name, (engine, _) in opened.items():
                runs[name][load].append(once(engine, prompts[:load]))
    bandwidth = bandwidth_gb_s(threads)
    found: dict[str, Any] = {"bandwidth_gb_s": bandwidth, "engines": {}}
    for name, (_, size) in opened.items():
        loads = {}
        for load, all_of in runs[name].items():
            best = max(all_of, key=lambda one: one["tokens_per_s"])
            cpu = max(one["tokens_per_cpu_s"] for one in all_of)
            share = best["tokens_per_s"] / load * size / 1e9 / bandwidth
            loads[str(load)] = {**best, "tokens_per_cpu_s": cpu, "share_of_bandwidth": share}
        found["engines"][name] = {"bytes": size, "loads": loads}
    return found


def main() -> None:
    """Measure and write the report."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else len(os.sched_getaffinity(0))
    base = base_of(BASE, ConsoleProgress()).gguf
    files = {quant: write_gguf(base, {}, quant) for quant in ("q8_0", "q4_0")}
    head = stamp()
    found = measure(files, threads)
    report = {**head, "load_1m_after": load_average(), "threads": threads, **found}
    path = HERE / f"report-{threads}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"memory {report['bandwidth_gb_s']:.1f} GB/s, {threads} threads")
    for name, engine in report["engines"].items():
        cells = [
            f"{v['tokens_per_s']:6.0f}/s {v['tokens_per_cpu_s']:5.0f}/cpu-s "
            f"{v['first_token_s'] * 1e3:5.0f} ms {v['share_of_bandwidth']:4.0%}"
            for v in engine["loads"].values()
        ]
        print(f"{name:36}", " |".join(cells))


if __name__ == "__main__":
    main()
