"""Language models on OpenVINO: continuous batching over a cache in pages.

In each step, every question that is being written gets its next token, and what room is left goes
to prompts; questions come and go between steps (Yu et al. 2022, "Orca"). A question is taken when
there are pages for the whole of it, so none is ever thrown out half way.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import openvino as ov

from genba.core.codec import decode
from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.talk import Ask, Piece, Said, Scored, Vocabulary
from genba.edge.gguf import read_gguf
from genba.edge.vocabulary import GgufVocabulary
from genba.engines.altstack import kept_signal_stack
from genba.engines.talk_grammar import Grammars
from genba.engines.talk_graph import PAGE, sizes_of
from genba.engines.talk_paged import PagedModel
from genba.engines.talk_pages import Pages
from genba.engines.talk_turns import Part, Scoring, Turn
from genba.engines.talking import answer_texts, at_least, broken, check_ask, check_tokens, too_long

_STEP_TOKENS: Final = 512  # of prompts, in one step: what others wait for meanwhile
_GUESSED_ROWS: Final = 5  # most rows of a step with guesses; with more, guesses cost what they save


@dataclass(frozen=True, kw_only=True, slots=True)
class TalkSettings:
    """What can be varied."""

    weights: Literal["int8", "q8_0", "int4", "f16", "f32"] = "int8"
    threads: int = 1
    slots: int = 16  # questions that are answered at the same time
    cache_tokens: int = 16_384  # that the cache of keys and values holds
    cache: Literal["u8", "f16", "f32"] = "u8"  # its number format
    guesses: int = 4  # most tokens that are guessed at a time from what came before; 0: none


class OpenVinoTalk:
    """A language model on OpenVINO, see `genba.core.talk.Talks`.

    Args:
        model: A GGUF file.
        settings: See `TalkSettings`.

    Raises:
        Problem: G601 for a model that cannot be computed here, G642 or G643 for a file that cannot
            be read, G102 or G103 for a wrong setting.
    """

    name: ClassVar[str] = "openvino-talk"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        self.model = model
        self.settings = dict(settings)
        chosen = decode(TalkSettings, settings, where="engine.settings")
        at_least(chosen, threads=1, slots=1, cache_tokens=2 * PAGE, guesses=0)
        file = read_gguf(model)
        words = GgufVocabulary(file)
        self.vocabulary: Vocabulary = words
        self.slots = chosen.slots
        self.context = min(sizes_of(file).context, chosen.cache_tokens)
        self._guesses = chosen.guesses
        count = chosen.cache_tokens // PAGE
        self._pages = Pages(count, PAGE)
        with kept_signal_stack():
            self._grammars = Grammars(words)
            self._paged: Any = PagedModel(
                file, chosen.weights, threads=chosen.threads, pages=count, cache=chosen.cache
            )
        self._waiting: deque[Turn | Scoring] = deque()
        self._running: list[Turn | Scoring] = []
        self._counts = dict.fromkeys(_COUNTED, 0.0)
        self._work = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._answer, name="openvino-talk", daemon=True)
        self._thread.start()

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:
        """Return 8 bits on one core and on all up to eight, and the exact numbers of a q8_0 file.

        A step is spread over all threads, which gains little where two share one core.
        """
        several = min(cores, 8)
        found = [{"weights": "int8", "threads": n} for n in sorted({1, several})]
        return [*found, {"weights": "q8_0", "threads": several}]

    @classmethod
    def space(cls, cores: int) -> Sequence[JsonObject]:
        """Return every number format of the weights on one core and on all, for a wide search."""
        return [
            {"weights": weights, "threads": threads}
            for threads in sorted({1, min(cores, 8)})
            for weights in ("int8", "q8_0", "int4", "f16", "f32")
        ]

    @classmethod
    def forms(cls) -> Mapping[str, Sequence[JsonObject]]:
        """Return nothing: weights are converted when the model is opened."""
        return {}

    @classmethod
    def version(cls) -> str:
        """Return the version of the runtime."""
        return str(ov.get_version()).partition("-")[0]

    def ask(self, ask: Ask, said: Said) -> "Waiting":
        """Begin to answer, see `genba.core.talk.Talks.ask`."""
        check_ask(ask, context=self.context, size=self.vocabulary.size)
        ends = frozenset() if ask.ignore_end else frozenset({*self.vocabulary.end, *ask.end})
        grammar = None if ask.schema is None else self._grammars.of_schema(ask.schema)
        turn = Turn(ask, said, ends, grammar, self._guesses)
        self._enter(turn)
        return Waiting(self._work, turn)

    def score(self, tokens: Array, *, likeliest: int = 0, since: int = 1) -> Scored:
        """Say how likely tokens are, see `genba.core.talk.Talks.score`."""
        given = np.asarray(tokens)
        check_tokens(given, self.vocabulary.size)
        if len(given) > self.context:
            raise too_long(len(given), 0, self.context)
        if len(given) == 1 or since >= len(given):
            return Scored(log_probability=np.full(len(given), np.nan), likeliest=((),) * len(given))
        scoring = Scoring(given.astype(np.int64), max(since, 1), likeliest)
        self._enter(scoring)
        return scoring.wait()

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Answer a batch of texts, see `genba.core.talk.Talks.run`."""
        return answer_texts(self, tensors)

    def stats(self) -> Mapping[str, float]:
        """Return counts; `guessed` tokens were checked, `guessed_right` of them were written."""
        with self._work:
            return {
                **self._counts,
                "running": float(len(self._running)),
                "waiting": float(len(self._waiting)),
                "pages": float(self._pages.count),
                "pages_used": float(self._pages.used),
            }

    def close(self) -> None:
        """Free what the runtime holds; what is being written ends with "cancelled"."""
        with self._work:
            self._closing = True
            self._work.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _enter(self, turn: Turn | Scoring) -> None:
        with self._work:
            if not self._closing:
                self._waiting.append(turn)
                self._work.notify_all()
                return
        turn.say(_closed())

    def _answer(self) -> None:
        """Compute steps as long as there is something to compute; the engine's own thread."""
        while self._wait():
            parts = self._plan()
            if not parts:
                continue
            try:
                logits, best = self._paged.compute([part for _, part in parts])
            except RuntimeError as error:
                self._fail(error)
                continue
            self._take(parts, logits, best)
        for turn in [*self._running, *self._waiting]:
            turn.say(_closed())
        self._running, self._paged = [], None

    def _wait(self) -> bool:
        """Wait for questions and take in those there is room for; False when it is over."""
        with self._work:
            self._work.wait_for(lambda: self._closing or self._running or self._waiting)
            if self._closing:
                return False
            self._drop_stopped()
            while self._waiting and len(self._running) < self.slots:
                turn = self._waiting[0]
                turn.held = self._pages.take(turn.known, turn.room)
                if turn.held is None:  # in turn: a short question does not overtake a long one
                    break
                turn.done = turn.held.shared
                self._counts["cached_tokens"] += turn.done
                self._counts["prompt_tokens"] += len(turn.known)
                self._running.append(self._waiting.popleft())
        return True

    def _drop_stopped(self) -> None:
        for turns in (self._running, self._waiting):
            for turn in [t for t in turns if t.stopped]:
                turns.remove(turn)
                self._free(turn)
                turn.say(Piece(finish="cancelled"))

    def _plan(self) -> list[tuple[Turn | Scoring, Part]]:
        """Return what is computed in this step: next tokens first, then prompts."""
        writing = [t for t in self._running if t.written]
        prompts = [t for t in self._running if not t.written]
        guesses = _GUESSED_ROWS // len(self._running) - 1 if not prompts and writing else 0
        parts: list[tuple[Turn | Scoring, Part]] = [(t, t.part(1, guesses)) for t in writing]
        room = _STEP_TOKENS
        for turn in prompts:
            if room <= 0:
                break
            part = turn.part(room, 0)
            room -= len(part.tokens)
            parts.append((turn, part))
        return parts

    def _take(
        self, parts: Sequence[tuple[Turn | Scoring, Part]], logits: Array, best: Array
    ) -> None:
        row = 0
        self._counts["steps"] += 1
        for turn, part in parts:
            rows = slice(row, row + part.wanted)
            row += part.wanted
            over = turn.take(part, logits[rows], best[rows])
            assert turn.held is not None
            self._pages.full(turn.held, turn.tokens[: turn.done])
            if over:
                self._leave(turn)

    def _leave(self, turn: Turn | Scoring) -> None:
        with self._work:
            self._running.remove(turn)
            self._free(turn)
        if isinstance(turn, Turn):
            self._counts["answer_tokens"] += turn.written
            self._counts["guessed"] += turn.guessed
            self._counts["guessed_right"] += turn.right
        else:
            turn.say(Piece(finish="end"))

    def _free(self, turn: Turn | Scoring) -> None:
        if turn.held is not None:
            self._pages.give_back(turn.held)
            turn.held = None

    def _fail(self, error: RuntimeError) -> None:
        """End all that is running, and forget what the cache may hold."""
        problem = broken(error)
        with self._work:
            failed, self._running = self._running, []
            self._pages = Pages(self._pages.count, PAGE)
        for turn in failed:
            turn.held = None
            turn.say(Piece(finish="error", problem=problem))


class Waiting:
    """A question that is being answered, for who wants to stop it."""

    def __init__(self, work: threading.Condition, turn: Turn) -> None:
        self._work = work
        self._turn = turn

    def cancel(self) -> None:
        """Stop writing; the last piece says "cancelled"."""
        with self._work:
            self._turn.stopped = True
            self._work.notify_all()


_COUNTED: Final = (
    "prompt_tokens", "cached_tokens", "answer_tokens", "steps", "guessed", "guessed_right",
)  # fmt: skip


def _closed() -> Piece:
    return Piece(finish="cancelled")
