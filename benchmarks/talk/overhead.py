"""What serving a language model costs beyond the engine: first token, and tokens per second.

The same engine with the same weights and settings answers the same prompts: once asked directly in
a process of its own, once by our server over HTTP as streams, in turns. The load comes from this
process, on the same cores.

    python -m benchmarks.talk.overhead [--rounds 5] [--model package:smollm2-135m] [--out FILE]
"""

import argparse
import asyncio
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from genba.core.resolve import resolve
from genba.core.talk import Ask, Piece
from genba.core.values import EngineChoice
from genba.learn.language.bases import base_of
from genba.runs.progress import SilentProgress
from genba.store.home import Store
from genba.testing.serving import place, running_server
from genba.testing.talking import talk_package

CLIENTS: Final = (1, 4, 16)
TOKENS: Final = 64
_WORDS: Final = ("roof", "gutter", "drain", "slate", "tile", "mortar", "lead", "rafter", "purlin")
_PAIRS: Final = 5  # for one client, in a round
Result = dict[str, float]


def prompt(number: int) -> list[dict[str, str]]:
    """Return a conversation that no other number has, of about 60 tokens."""
    words = [_WORDS[(number * 7 + k * (k + number)) % len(_WORDS)] for k in range(24)]
    return [{"role": "user", "content": f"{number}: explain {' '.join(words)}."}]


def summary(firsts: Sequence[float], wholes: Sequence[float], tokens: int, took_s: float) -> Result:
    """Return medians in ms and tokens per second."""
    return {
        "first_ms": 1e3 * statistics.median(firsts),
        "whole_ms": 1e3 * statistics.median(wholes),
        "tokens_per_s": tokens / took_s,
    }


# The engine alone.


def bare(engine: Any, clients: int, asks: int, first: int) -> Result:
    """Ask an engine directly, as many at once as there are clients."""
    firsts: list[float] = []
    wholes: list[float] = []
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    tokens = 0

    def ask(number: int) -> None:
        started = time.perf_counter()
        begun: list[float] = []

        def said(piece: Piece) -> None:
            nonlocal tokens
            now = time.perf_counter()
            tokens += len(piece.tokens)
            if not begun:
                begun.append(now - started)
            if piece.finish:
                firsts.append(begun[0])
                wholes.append(now - started)
                done.put(None)

        written = np.array(engine.vocabulary.prompt(prompt(number)), dtype=np.int64)
        engine.ask(Ask(tokens=written, most=TOKENS, ignore_end=True), said)

    started = time.perf_counter()
    for number in range(asks):
        if number >= clients:
            done.get()
        ask(first + number)
    for _ in range(min(clients, asks)):
        done.get()
    return summary(firsts, wholes, tokens, time.perf_counter() - started)


def child() -> None:
    """Answer orders of the parent: one JSON line in, one out."""
    order = json.loads(sys.stdin.readline())
    model = Path(order["model"]).read_bytes()
    engine = resolve("engine", order["engine"])(model, order["settings"])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(bare(engine, *json.loads(line))), flush=True)


# By the server.


async def one(port: int, number: int) -> tuple[float, float, int]:
    """Stream one answer; return seconds to the first words and to the end, and tokens."""
    body = json.dumps(
        {
            "model": "desk",
            "messages": prompt(number),
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": TOKENS,
            "ignore_eos": True,
        }
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    first, data = 0.0, b""
    while not data.endswith(b"0\r\n\r\n"):
        data += await reader.read(65_536)
        if not first and data.count(b'"content":"') > 1:  # after the empty one of the role
            first = time.perf_counter() - started
    took = time.perf_counter() - started
    writer.close()
    return first, took, int(data.rpartition(b'"completion_tokens":')[2].partition(b",")[0])


async def served(port: int, clients: int, asks: int, first: int) -> Result:
    """Ask the server, as many at once as there are clients."""
    numbers = iter(range(first, first + asks))
    found: list[tuple[float, float, int]] = []

    async def client() -> None:
        for number in numbers:
            found.append(await one(port, number))

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took_s = time.perf_counter() - started
    tokens = sum(n for _, _, n in found)
    return summary([f for f, _, _ in found], [w for _, w, _ in found], tokens, took_s)


# In turns.


def rounds(
    count: int, by_engine: Callable[..., Result], by_server: Callable[..., Result]
) -> dict[str, Any]:
    """Measure both in turns and return the medians, and the medians of their differences."""
    told: dict[str, Any] = {}
    number = 0
    for clients in CLIENTS:
        # One client asks once in each turn: what else the machine does falls on both alike.
        asks, turns = (1, _PAIRS * count) if clients == 1 else (2 * clients, count)
        kept: dict[str, list[Result]] = {"engine": [], "server": []}
        for turn in range(turns + 1):
            both = [("engine", by_engine), ("server", by_server)]
            for name, ask in both if turn % 2 else both[::-1]:
                result = ask(clients, asks, number)
                number += asks
                if turn:  # the first warms up
                    kept[name].append(result)
        told[str(clients)] = compared(kept["engine"], kept["server"])
        print(clients, json.dumps(told[str(clients)]), flush=True)
    return told


def compared(engine: Sequence[Result], server: Sequence[Result]) -> dict[str, float]:
    """Return what the server adds, pair by pair."""
    pairs = list(zip(engine, server, strict=True))
    middle = statistics.median
    return {
        "engine_first_ms": round(middle(e["first_ms"] for e in engine), 2),
        "server_first_ms": round(middle(s["first_ms"] for s in server), 2),
        "added_first_ms": round(middle(s["first_ms"] - e["first_ms"] for e, s in pairs), 2),
        "engine_tokens_per_s": round(middle(e["tokens_per_s"] for e in engine), 1),
        "server_tokens_per_s": round(middle(s["tokens_per_s"] for s in server), 1),
        "tokens_per_s_ratio": round(
            middle(s["tokens_per_s"] / e["tokens_per_s"] for e, s in pairs), 4
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="package:smollm2-135m")
    parser.add_argument("--engine", default="openvino-talk")
    parser.add_argument("--settings", type=json.loads, default={"weights": "int8", "threads": 2})
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    base = base_of(asked.model, SilentProgress())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with Store.open(home, create=True) as store:
            choice = EngineChoice(name=asked.engine, settings=asked.settings)
            package = talk_package(store, "desk", base.gguf, engine=choice)
            place(store, "desk", "promote", package)
        with (
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.talk.overhead", "child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as engine,
            running_server(home) as server,
        ):
            assert engine.stdin is not None
            assert engine.stdout is not None
            order = {"model": str(base.path), "engine": asked.engine, "settings": asked.settings}
            told_to, hears = engine.stdin, engine.stdout

            def by_engine(*wanted: int) -> Result:
                told_to.write(json.dumps(wanted) + "\n")
                told_to.flush()
                result: Result = json.loads(hears.readline())
                return result

            told_to.write(json.dumps(order) + "\n")
            told_to.flush()
            hears.readline()
            report = rounds(
                asked.rounds, by_engine, lambda *wanted: asyncio.run(served(server.port, *wanted))
            )
            told_to.close()
    if asked.out:
        asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()
