"""A language model behind somebody else's OpenAI-compatible server: vLLM, SGLang, llama.cpp, ...

The vocabulary and the template are those of the package; the server gets tokens and gives tokens,
so a package answers alike wherever its weights are computed. What such a server is not known to do
is refused, since servers tend to ignore what they do not know.
"""

import http.client
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

import numpy as np

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.talk import Ask, Finish, Piece, Said, Scored, Vocabulary
from genba.edge.gguf import read_gguf
from genba.edge.vocabulary import GgufVocabulary
from genba.engines.talk_grammar import Grammar, Grammars
from genba.engines.talking import answer_texts, at_least, check_ask, check_tokens, refuse, too_long

_MOST_LINE: Final = 4_000_000  # bytes of one event
_MOST_ANSWER: Final = 256_000_000  # bytes of an answer that comes as a whole
_DATA: Final = b"data:"
_NUMBERED: Final = "token_id:"
_OVER: Final = b"[DONE]"


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamSettings:
    """Where the server is and what it can do."""

    url: str  # up to and with /v1
    model: str  # as the server names it
    kind: Literal["openai", "vllm"] = "openai"  # "vllm": says tokens, knows `min_tokens` and so on
    key_env: str = ""  # environment variable that has the key
    slots: int = 16  # questions at the same time
    context: int = 4096  # most tokens of prompt and answer together
    timeout_s: float = 60.0  # without a byte from the server


class Upstream:
    """A language model on another server, see `genba.core.talk.Talks`.

    Args:
        model: The GGUF file of the package: its vocabulary and template are used.
        settings: See `UpstreamSettings`.

    Raises:
        Problem: G642 or G643 for a file that cannot be read, G102 or G103 for a wrong setting.
    """

    name: ClassVar[str] = "upstream"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        self.model = model
        self.settings = dict(settings)
        chosen = decode(UpstreamSettings, settings, where="engine.settings")
        at_least(chosen, slots=1, context=64, timeout_s=0.1)
        self._server = _Server(chosen)
        file = read_gguf(model)
        self._words = GgufVocabulary(file)
        self.vocabulary: Vocabulary = self._words
        self._grammars = Grammars(self._words)
        self._exact = chosen.kind == "vllm"
        self.context, self.slots = chosen.context, chosen.slots
        self._lock = threading.Lock()
        self._going: set[_Question] = set()
        self._counts = dict.fromkeys(("prompt_tokens", "answer_tokens"), 0.0)
        self._closing = False
        self._threads = ThreadPoolExecutor(chosen.slots, thread_name_prefix="upstream")

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:  # noqa: ARG003  # of the protocol
        """Return nothing: only people know where a server is."""
        return ()

    @classmethod
    def version(cls) -> str:
        """Return the version of what makes the tokens; the server does not say its own."""
        return version("tokenizers")

    def ask(self, ask: Ask, said: Said) -> "_Question":
        """Begin to answer, see `genba.core.talk.Talks.ask`."""
        check_ask(ask, context=self.context, size=self._words.size)
        grammar = None if ask.schema is None else self._grammars.of_schema(ask.schema)
        question = _Question(self._body(ask), ask, said, self._words, grammar)
        with self._lock:
            going = not self._closing
            if going:
                self._going.add(question)
                self._threads.submit(self._answer, question)
        if not going:
            question.say(Piece(finish="cancelled"))
        return question

    def score(self, tokens: Array, *, likeliest: int = 0, since: int = 1) -> Scored:
        """Say how likely tokens are, see `genba.core.talk.Talks.score`.

        Raises:
            Problem: Besides, G641 when the server tells nothing of tokens it was given.
        """
        given = np.asarray(tokens)
        check_tokens(given, self._words.size)
        if len(given) >= self.context:
            raise too_long(len(given), 1, self.context)
        body = {"prompt": given.tolist(), "max_tokens": 1, "echo": True, "temperature": 0}
        exact = {"return_tokens_as_token_ids": True} if self._exact else {}
        told = self._server.whole({**body, **exact, "logprobs": max(likeliest, 1)})
        logged = (told.get("choices") or [{}])[0].get("logprobs") or {}
        found = [np.nan if p is None else float(p) for p in logged.get("token_logprobs") or []]
        if len(found) not in (len(given), len(given) + 1):
            raise refuse("The server says nothing of how likely given tokens are.")
        first = min(max(since, 1), len(given))
        found = [np.nan] * first + found[first : len(given)]
        tops = logged.get("top_logprobs") or []
        alternatives = [
            self._alternatives(top, likeliest) if at >= first else ()
            for at, top in enumerate([*tops, *[None] * len(given)][: len(given)])
        ]
        return Scored(log_probability=np.array(found), likeliest=tuple(alternatives))

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
        """End what is being written with "cancelled"."""
        with self._lock:
            self._closing = True
            for question in self._going:
                question.cancel()
        self._threads.shutdown(wait=True)

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt": ask.tokens.tolist(),
            "max_tokens": ask.most,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "logprobs": max(ask.likeliest, 1),
            "stream": True,
        }
        if ask.seed is not None:
            body["seed"] = ask.seed
        if self._exact:
            body |= {
                "min_tokens": ask.least,
                "ignore_eos": ask.ignore_end,
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
            }
            body |= {"stop_token_ids": list(ask.end)} if ask.end else {}
        elif ask.least or ask.ignore_end or ask.end:
            raise refuse('A server of kind "openai" is not known to hold back or add ends.')
        if ask.schema is not None:
            shape = {"name": "answer", "schema": json.loads(ask.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    def _answer(self, question: "_Question") -> None:
        question.begun = True
        try:
            if not question.stopped:
                for event in self._server.events(question.body):
                    if question.take(event):
                        break
            question.over()
        except Problem as problem:
            question.say(Piece(finish="error", problem=problem))
        except Exception as error:  # noqa: BLE001  # a thread of the pool has nobody to tell
            question.say(Piece(finish="error", problem=_silent(str(error))))
        with self._lock:
            self._going.discard(question)
            self._counts["prompt_tokens"] += len(question.body["prompt"])
            self._counts["answer_tokens"] += question.written

    def _alternatives(self, top: Any, count: int) -> tuple[tuple[int, float], ...]:
        return _alternatives(self._words, top, count)


class _Question:
    """A question and its answer so far."""

    def __init__(
        self,
        body: dict[str, Any],
        ask: Ask,
        said: Said,
        vocabulary: GgufVocabulary,
        grammar: Grammar | None,
    ) -> None:
        self.body = body
        self.stopped = self.begun = False
        self.written = 0
        self._ask = ask
        self._said = said
        self._vocabulary = vocabulary
        self._grammar = grammar
        self._tokens: list[int] = []
        self._finished = False

    def cancel(self) -> None:
        """Stop reading; the server notices that nobody does."""
        self.stopped = True

    def take(self, event: Mapping[str, Any]) -> bool:
        """Hand on what came; returns whether to stop reading."""
        if self.stopped:
            return True
        choices = event.get("choices") or []
        if not choices:  # usage
            return False
        choice = choices[0]
        reason = choice.get("finish_reason")
        finish: Finish = "" if reason is None else "length" if reason == "length" else "end"
        piece = self._piece(choice, finish)
        self.written += len(piece.tokens)
        if piece.tokens or finish:
            self.say(piece)
        return bool(finish)

    def _piece(self, choice: Mapping[str, Any], finish: Finish) -> Piece:
        text, logged = str(choice.get("text") or ""), choice.get("logprobs") or {}
        told = choice.get("token_ids")
        tokens = tuple(told) if told is not None else tuple(self._vocabulary.encode(text))
        found = [
            float("nan") if p is None else float(p) for p in logged.get("token_logprobs") or []
        ]
        tops = logged.get("top_logprobs") or []
        same = len(found) == len(tokens)
        self._tokens += (token for token in tokens if token not in self._vocabulary.control)
        if finish and not self._follows(whole=finish == "end"):
            problem = refuse("The server did not follow the schema.")
            return Piece(finish="error", problem=problem)
        return Piece(
            tokens=tokens,
            log_probability=tuple(found) if same else (float("nan"),) * len(tokens),
            likeliest=tuple(
                _alternatives(self._vocabulary, top, self._ask.likeliest) for top in tops
            )
            if same and len(tops) == len(tokens)
            else ((),) * len(tokens),
            finish=finish,
        )

    def _follows(self, *, whole: bool) -> bool:
        return self._grammar is None or self._grammar.follows(self._tokens, whole=whole)

    def over(self) -> None:
        """End where the server did not say why."""
        if self._finished:
            return
        cancelled = self.stopped or not self.begun
        lost = Piece(finish="error", problem=_silent("It stopped in the middle of an answer."))
        self.say(Piece(finish="cancelled") if cancelled else lost)

    def say(self, piece: Piece) -> None:
        """Hand a piece on, nothing after the last."""
        if self._finished:
            return
        self._finished = bool(piece.finish)
        try:
            self._said(piece)
        except Exception:  # noqa: BLE001  # one listener's fault is not that of the server
            self.stopped = True


class _Server:
    """Speaks HTTP; one connection for each question."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._address = urlsplit(settings.url)
        if self._address.scheme not in {"http", "https"} or not self._address.hostname:
            raise Problem(
                "G103",
                f"engine.settings.url must be an address of the web, not {settings.url!r}.",
                tries=['url = "http://127.0.0.1:8000/v1"'],
            )

    def whole(self, body: JsonObject) -> dict[str, Any]:
        """Return an answer that comes as a whole."""
        with self._posted(body) as answer:
            told: dict[str, Any] = json.loads(answer.read(_MOST_ANSWER))
            return told

    def events(self, body: JsonObject) -> Iterator[dict[str, Any]]:
        """Yield the events of an answer as they come."""
        with self._posted(body) as answer:
            while line := answer.readline(_MOST_LINE):
                data = line.removeprefix(_DATA).strip() if line.startswith(_DATA) else b""
                if data == _OVER:
                    return
                if data:
                    yield json.loads(data)

    @contextmanager
    def _posted(self, body: JsonObject) -> Iterator[Any]:
        secure = self._address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        host, port = str(self._address.hostname), self._address.port
        connection = kind(host, port, timeout=self._settings.timeout_s)
        headers = {"content-type": "application/json"}
        key = os.environ.get(self._settings.key_env, "") if self._settings.key_env else ""
        if key:
            headers["authorization"] = f"Bearer {key}"
        path = self._address.path.rstrip("/") + "/completions"
        data = json.dumps({"model": self._settings.model, **body})
        try:
            connection.request("POST", path, data, headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                said = answer.read(2000).decode("utf-8", "replace")
                raise _silent(f"It said {answer.status}: {said[:160]}")
            yield answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _silent(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()


def _alternatives(
    vocabulary: GgufVocabulary, top: Any, count: int
) -> tuple[tuple[int, float], ...]:
    """Return alternatives, which are told by number or by text: those that are one token."""
    if not isinstance(top, Mapping) or not count:
        return ()
    ordered = sorted(top.items(), key=lambda item: -item[1])
    coded = [(_tokens_of(vocabulary, str(text)), float(value)) for text, value in ordered]
    return tuple((tokens[0], value) for tokens, value in coded if len(tokens) == 1)[:count]


def _tokens_of(vocabulary: GgufVocabulary, text: str) -> list[int]:
    number = text.removeprefix(_NUMBERED)
    return [int(number)] if number != text else vocabulary.encode(text, special=True)


def _silent(why: str) -> Problem:
    return Problem(
        "G645",
        "The server of the language model does not answer as it should.",
        why=why,
        tries=["curl URL/models", "genba explain G645"],
    )
