"""Two adapters on one base, merged, under load: not one answer from the wrong one."""

import threading
from typing import Any

import numpy as np
import pytest

from genba.core.talk import Ask
from genba.engines.llama_cpp import LlamaCpp
from genba.engines.openvino_talk import OpenVinoTalk
from genba.engines.talking import Collected, ask_and_wait
from genba.learn.language.export import write_gguf
from genba.testing.tiny_talk import tiny_talk, tiny_weights

KINDS = [(OpenVinoTalk, {"weights": "f32", "cache": "f32"}), (LlamaCpp, {"slots": 4})]
CALLERS, ROUNDS = 4, 6
QUESTIONS = ("Hello", "Close the valve", "Close the valve now", "The pump stands still, why?")
SYSTEM = "You can find the answer in the manual of the machine, in the chapter about maintenance."


def adapted(seed: int) -> bytes:
    """Return the base with low-rank changes of its queries and values merged."""
    chance = np.random.default_rng(seed)
    changed = {}
    for name, array in tiny_weights().items():
        if "attn_q" in name or "attn_v" in name:
            rows, columns = array.shape
            low = chance.normal(size=(rows, 4)) @ chance.normal(size=(4, columns))
            changed[name] = (array + 0.1 * low).astype(np.float32)
    return write_gguf(tiny_talk(), changed, "f32")


@pytest.mark.parametrize(("kind", "settings"), KINDS, ids=["openvino-talk", "llama-cpp"])
def test_no_answer_comes_from_the_wrong_adapter(kind: Any, settings: dict[str, Any]) -> None:
    engines = [kind(adapted(seed), settings) for seed in (1, 2)]
    words = engines[0].vocabulary
    asks = [
        Ask(
            tokens=np.array(
                words.prompt(
                    [{"role": "system", "content": SYSTEM}, {"role": "user", "content": q}]
                )
            ),
            most=16,
        )
        for q in QUESTIONS
    ]
    alone = [[words.decode(ask_and_wait(e, ask, 60).tokens) for ask in asks] for e in engines]
    assert all(a != b for a, b in zip(*alone, strict=True))
    found: list[tuple[int, int, str]] = []

    def caller(number: int) -> None:
        for turn in range(ROUNDS):
            several = []
            for at, ask in enumerate(asks):
                which = (number + turn + at) % 2
                several.append((which, at, Collected()))
                engines[which].ask(ask, several[-1][2].said)
            for which, at, collected in several:
                found.append((which, at, words.decode(collected.wait(60).tokens)))

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.close()
    assert len(found) == CALLERS * ROUNDS * len(QUESTIONS)
    assert [text == alone[which][at] for which, at, text in found].count(False) == 0
