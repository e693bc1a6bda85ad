"""Bare engines: the library itself, asked for the same tokens."""

import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai
import xllamacpp

from genba.core.resolve import resolve
from genba.core.talk import Ask
from genba.engines.talking import Collected

SLOTS = 16
CACHE_TOKENS = 16_384
CONTEXT = 512


class Ours:
    """An engine of the catalog."""

    def __init__(self, model: bytes, name: str, settings: dict[str, Any]) -> None:
        self.engine = resolve("engine", name)(model, settings)

    def write(self, prompts: Sequence[list[int]], most: int) -> list[float]:
        """Answer all at once; return the seconds to each first token."""
        begin = time.perf_counter()
        first: dict[int, float] = {}
        several = [Collected() for _ in prompts]
        for number, (prompt, collected) in enumerate(zip(prompts, several, strict=True)):

            def said(piece: Any, number: int = number, collected: Collected = collected) -> None:
                first.setdefault(number, time.perf_counter() - begin)
                collected.said(piece)

            self.engine.ask(Ask(tokens=np.array(prompt), most=most, ignore_end=True), said)
        for collected in several:
            collected.wait()
        return [first[number] for number in range(len(prompts))]


class GenAi:
    """OpenVINO GenAI's continuous batching on a GGUF file, by its own loader."""

    def __init__(self, model: bytes, threads: int) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 0
        scheduler.num_kv_blocks = CACHE_TOKENS // 32
        scheduler.enable_prefix_caching = True
        scheduler.max_num_seqs = SLOTS
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            path.write_bytes(model)
            self.pipe = openvino_genai.ContinuousBatchingPipeline(
                str(path), scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads}
            )

    def write(self, prompts: Sequence[list[int]], most: int) -> list[float]:
        """Answer all at once; return the seconds to each first token."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = most, True
        begin = time.perf_counter()
        handles = [
            self.pipe.add_request(number, ov.Tensor(np.array([prompt])), config)
            for number, prompt in enumerate(prompts)
        ]
        first: dict[int, float] = {}
        while self.pipe.has_non_finished_requests():
            self.pipe.step()
            for number, handle in enumerate(handles):
                while handle.can_read():
                    handle.read()
                    first.setdefault(number, time.perf_counter() - begin)
        return [first[number] for number in range(len(prompts))]


class Llama:
    """llama.cpp's server code without HTTP, as the binding offers it."""

    def __init__(self, model: bytes, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup, params.verbosity = False, -1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            path.write_bytes(model)
            params.model.path = str(path)
            self.server = xllamacpp.Server(params)

    def write(self, prompts: Sequence[list[int]], most: int) -> list[float]:
        """Answer all at once; return the seconds to each first token."""
        begin = time.perf_counter()
        first: dict[int, float] = {}

        def one(number: int) -> None:
            def take(_: Any) -> bool:
                first.setdefault(number, time.perf_counter() - begin)
                return False

            self.server.handle_completions(
                {
                    "prompt": prompts[number],
                    "max_tokens": most,
                    "temperature": 0,
                    "ignore_eos": True,
                    "stream": True,
                },
                take,
            )

        threads = [threading.Thread(target=one, args=(n,)) for n in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [first[number] for number in range(len(prompts))]
