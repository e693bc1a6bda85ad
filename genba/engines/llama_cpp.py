"""llama.cpp: continuous batching on almost any processor, straight from a GGUF file.

Each question has a thread of its own, which waits inside the library for the next token. The
library cannot say how likely given tokens are; it is made to write exactly them (a grammar of one
sentence), and tells what it would have thought of each.
"""

import json
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import xllamacpp

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.talk import Ask, Finish, Piece, Said, Scored, Vocabulary
from genba.edge.gguf import read_gguf
from genba.edge.vocabulary import GgufVocabulary
from genba.engines.refusal import in_short
from genba.engines.talk_grammar import Grammars
from genba.engines.talking import (
    answer_texts,
    at_least,
    broken,
    check_ask,
    check_tokens,
    refuse,
    too_long,
)

_QUIET: Final = -1
_FORCED: Final = 1000.0  # added to a logit, so that nothing else can be chosen
_MOST_FORCED: Final = 512  # tokens of one grammar
_LETTER: Final = ord("a")
_PLAIN: Final = {"top_k": 0, "min_p": 0.0, "samplers": ["temperature", "top_p"]}

#: The logarithm of a token's probability, and the likeliest tokens in its place.
_Thought = tuple[float, tuple[tuple[int, float], ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class LlamaSettings:
    """What can be varied."""

    threads: int = 1
    slots: int = 4  # questions that are answered at the same time
    context: int = 2048  # most tokens of prompt and answer together, for each slot


class LlamaCpp:
    """A language model in llama.cpp, see `genba.core.talk.Talks`.

    Args:
        model: A GGUF file.
        settings: See `LlamaSettings`.

    Raises:
        Problem: G601 for a model that llama.cpp cannot load, G642 or G643 for a file that cannot
            be read, G102 or G103 for a wrong setting.
    """

    name: ClassVar[str] = "llama-cpp"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        self.model = model
        self.settings = dict(settings)
        chosen = decode(LlamaSettings, settings, where="engine.settings")
        at_least(chosen, threads=1, slots=1, context=64)
        file = read_gguf(model)
        self._words = GgufVocabulary(file)
        self.vocabulary: Vocabulary = self._words
        architecture = file.text("general.architecture")
        self.context = min(file.whole(f"{architecture}.context_length"), chosen.context)
        self.slots = chosen.slots
        self._grammars = Grammars(self._words)
        self._server: Any = _open(model, chosen, self.context)
        self._counts = dict.fromkeys(("prompt_tokens", "answer_tokens", "cached_tokens"), 0.0)
        self._lock = threading.Lock()
        self._going: set[_Question] = set()
        self._closing = False
        self._threads = ThreadPoolExecutor(chosen.slots, thread_name_prefix="llama-cpp")

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:
        """Return all cores up to eight, for one and for several questions at a time."""
        threads = min(cores, 8)
        return [{"threads": threads, "slots": slots} for slots in (1, 4)]

    @classmethod
    def version(cls) -> str:
        """Return the version of the binding, which names the one of llama.cpp."""
        return version("xllamacpp")

    def ask(self, ask: Ask, said: Said) -> "_Question":
        """Begin to answer, see `genba.core.talk.Talks.ask`."""
        check_ask(ask, context=self.context, size=self.vocabulary.size)
        if ask.least:
            raise refuse("llama.cpp cannot be told to write at least so many tokens.")
        request = {**_plain_request(ask.tokens.tolist(), ask.most, ask.likeliest), **_PLAIN}
        request |= {"temperature": ask.temperature, "top_p": ask.top_p}
        request |= {"ignore_eos": ask.ignore_end}
        if ask.seed is not None:
            request["seed"] = ask.seed % (1 << 32)
        if ask.schema is not None:
            self._grammars.of_schema(ask.schema)  # refuses what cannot be followed
            request["grammar"] = f"%llguidance {{}}\nstart: %json {_one_line(ask.schema)}"
        ends = frozenset() if ask.ignore_end else frozenset({*self.vocabulary.end, *ask.end})
        question = _Question(request, said, ends, self._words)
        with self._lock:
            going = not self._closing
            if going:
                self._going.add(question)
                self._threads.submit(self._answer, question)
        if not going:
            question.over()
        return question

    def score(self, tokens: Array, *, likeliest: int = 0, since: int = 1) -> Scored:
        """Say how likely tokens are, see `genba.core.talk.Talks.score`; one step for each."""
        given = np.asarray(tokens)
        check_tokens(given, self.vocabulary.size)
        if len(given) > self.context:
            raise too_long(len(given), 0, self.context)
        first = min(max(since, 1), len(given))
        found: list[_Thought] = []
        for start, stop in self._stretches(given, first):
            found += self._force(given, start, stop, likeliest)
        alternatives = tuple(a for _, a in found)
        return Scored(
            log_probability=np.array([np.nan] * first + [p for p, _ in found]),
            likeliest=(*[()] * first, *alternatives),
        )

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Answer a batch of texts, see `genba.core.talk.Talks.run`."""
        return answer_texts(self, tensors)

    def stats(self) -> Mapping[str, float]:
        """Return counts for monitoring."""
        with self._lock:
            running = sum(question.begun for question in self._going)
            waiting = len(self._going) - running
            return {**self._counts, "running": float(running), "waiting": float(waiting)}

    def close(self) -> None:
        """Free what the runtime holds; what is being written ends with "cancelled"."""
        with self._lock:
            self._closing = True
            for question in self._going:
                question.cancel()
        self._threads.shutdown(wait=True)
        self._server = None

    def _answer(self, question: "_Question") -> None:
        """Answer one question; on a thread of the pool."""
        question.begun = True
        try:
            if not question.stopped:
                self._server.handle_completions(question.request, question.take)
            question.over()
        except Exception as error:  # noqa: BLE001  # a thread of the pool has nobody to tell
            question.fail(broken(error))
        with self._lock:
            self._going.discard(question)
            self._counts["prompt_tokens"] += len(question.request["prompt"])
            self._counts["answer_tokens"] += question.written
            self._counts["cached_tokens"] += question.cached

    def _stretches(self, tokens: Array, first: int) -> Iterable[tuple[int, int]]:
        """Return where to cut: a grammar knows neither ends of answers nor half characters."""
        start = first
        for at in range(first, len(tokens)):
            alone = self._stands_alone(int(tokens[at]))
            if (alone or at - start == _MOST_FORCED) and start < at:
                yield start, at
                start = at
            if alone:
                yield at, at + 1
                start = at + 1
        if start < len(tokens):
            yield start, len(tokens)

    def _stands_alone(self, token: int) -> bool:
        text = self.vocabulary.decode([token])
        return token in self._words.control or not text or "\ufffd" in text

    def _force(self, tokens: Array, start: int, stop: int, likeliest: int) -> list[_Thought]:
        forced = tokens[start:stop].tolist()
        before = tokens[:start].tolist()
        if len(forced) > 1:
            grammar = "root ::= " + " ".join(f"<[{token}]>" for token in forced)
            return self._forced({"grammar": grammar}, before, forced, likeliest)
        token = forced[0]
        if token in self._words.control or "\ufffd" not in self.vocabulary.decode([token]):
            bias = {"logit_bias": [[token, _FORCED]]}
            return self._forced(bias, before, forced, likeliest)
        # Nothing is said of a token that is half a character, but it is among the alternatives.
        other = self._words.of_byte(_LETTER)
        bias = {"logit_bias": [[other, _FORCED]]}
        ((_, thoughts),) = self._forced(bias, before, [other], self.vocabulary.size)
        return [(dict(thoughts)[token], thoughts[:likeliest])]

    def _forced(
        self, how: JsonObject, before: Sequence[int], forced: Sequence[int], likeliest: int
    ) -> list[_Thought]:
        request = {**_plain_request(before, len(forced), likeliest), **how}
        told = self._server.handle_completions({**request, "temperature": 0.0, "stream": False})
        if "error" in told:
            raise broken(RuntimeError(str(told["error"].get("message", ""))))
        words = (told["choices"][0]["logprobs"] or {}).get("content", [])
        written = [word["id"] for word in words]
        if written != list(forced):
            raise broken(RuntimeError(f"it wrote {written[:5]} where {forced[:5]} was forced"))
        return [(float(word["logprob"]), _alternatives(word)[:likeliest]) for word in words]


def _alternatives(word: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    return tuple((w["id"], float(w["logprob"])) for w in word["top_logprobs"])


class _Question:
    """A question and its answer so far; called by the library with each token."""

    def __init__(
        self,
        request: dict[str, Any],
        said: Said,
        ends: frozenset[int],
        vocabulary: GgufVocabulary,
    ) -> None:
        self.request = request
        self.stopped = self.begun = False
        self.written = self.cached = 0
        self._said = said
        self._ends = ends
        self._vocabulary = vocabulary
        self._finished = False

    def cancel(self) -> None:
        """Stop writing with the next token."""
        self.stopped = True

    def take(self, chunk: Mapping[str, Any]) -> bool:
        """Hand a token on; returns whether to stop."""
        if "error" in chunk:
            self.fail(broken(RuntimeError(str(chunk["error"].get("message", "")))))
            return True
        used = chunk.get("usage") or {}
        self.cached = used.get("prompt_tokens_details", {}).get("cached_tokens", self.cached)
        choice = chunk["choices"][0]
        for word in (choice.get("logprobs") or {}).get("content") or ():
            if not self._finished and not self.stopped:
                self._word(word, choice["text"].encode())
        if choice["finish_reason"] and not self._finished and not self.stopped:
            self._finish("length" if choice["finish_reason"] == "length" else "end")
        return self._finished or self.stopped

    def _word(self, word: Mapping[str, Any], text: bytes) -> None:
        token = word["id"]
        lost = self._lost(token, text)
        self.written += 1 + len(lost)
        ended = token in self._ends
        self._finished = ended
        self._say(
            Piece(
                tokens=(*lost, token),
                log_probability=(*[float("nan")] * len(lost), float(word["logprob"])),
                likeliest=(*[()] * len(lost), _alternatives(word)),
                finish="end" if ended else "",
            )
        )

    def _lost(self, token: int, text: bytes) -> list[int]:
        """Return tokens before this one that the library kept to itself.

        It says nothing of tokens that end inside a character, only its text when the character is
        whole.
        """
        own = self._vocabulary.bytes_of([token])
        if len(text) <= len(own) or not text.endswith(own):
            return []
        whole = self._vocabulary.encode(text.decode())
        if whole[-1:] == [token]:
            return whole[:-1]
        return [self._vocabulary.of_byte(byte) for byte in text[: len(text) - len(own)]]

    def _finish(self, finish: Finish) -> None:
        self._finished = True
        self._say(Piece(finish=finish))

    def fail(self, problem: Problem) -> None:
        """End with an error."""
        if not self._finished:
            self._finished = True
            self._say(Piece(finish="error", problem=problem))

    def over(self) -> None:
        """End where no token did: nobody reads on, or the text cannot go on."""
        if not self._finished:
            self._finish("cancelled" if self.stopped or not self.begun else "end")

    def _say(self, piece: Piece) -> None:
        try:
            self._said(piece)
        except Exception:  # noqa: BLE001  # one listener's fault is not that of the library
            self.stopped = True


def _plain_request(tokens: Sequence[int], most: int, likeliest: int) -> dict[str, Any]:
    return {
        "prompt": list(tokens),
        "max_tokens": most,
        "n_probs": max(likeliest, 1),
        "logprobs": max(likeliest, 1),
        "stream": True,
        "cache_prompt": True,
    }


def _one_line(schema: str) -> str:
    return json.dumps(json.loads(schema))


def _open(model: bytes, settings: LlamaSettings, context: int) -> Any:
    params = xllamacpp.CommonParams()
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    params.warmup = False
    params.verbosity = _QUIET
    params.endpoint_slots = params.endpoint_metrics = False
    with tempfile.TemporaryDirectory(prefix="genba-talk-") as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(model)
        params.model.path = str(path)
        try:
            server = xllamacpp.Server(params)
            # Freed before its thread has come to wait for work, the library waits for ever.
            server.handle_completions({**_plain_request([0], 1, 0), "stream": False})
            return server
        except Exception as error:  # the binding raises plain exceptions of several kinds
            raise Problem(
                "G601",
                "llama.cpp cannot load this language model.",
                why=in_short(error),
                tries=['engines = ["openvino-talk"]', "genba explain G601"],
            ) from error
