"""A language model that needs no weights: it spells an answer byte by byte, the same every time.

Serving is tested with it: what it says is known, how fast is a setting, and it can fail on demand.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ClassVar, Final

import numpy as np

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.talk import Ask, Piece, Said, Scored, Words
from genba.edge.texts import messages_of

START, END = "<|start|>", "<|end|>"
_START, _END, _SIZE = 256, 257, 258
_LIKELY: Final = -0.25  # natural logarithm of the probability of a token that is written
_STEP: Final = 0.5  # by which each alternative is less likely than the one before
_WAIT_S: Final = 30.0


class ByteVocabulary:
    r"""Bytes are tokens, and two more begin and end a message.

    Example:
        >>> words = ByteVocabulary()
        >>> words.decode(words.prompt([{"role": "user", "content": "Hi"}]), special=True)
        '<|start|>user\nHi<|end|><|start|>assistant\n'
    """

    size = _SIZE
    end = (_END,)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the bytes of a text; `special`: the two names in it are tokens."""
        if not special:
            return list(text.encode())
        tokens: list[int] = []
        for first, part in enumerate(text.split(START)):
            tokens += [_START] * bool(first)
            for second, rest in enumerate(part.split(END)):
                tokens += [_END] * bool(second) + list(rest.encode())
        return tokens

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Return the text of tokens."""
        return self.bytes_of(tokens, special=special).decode("utf-8", "replace")

    def bytes_of(self, tokens: Sequence[int], *, special: bool = False) -> bytes:
        """Return the bytes of tokens."""
        names = {_START: START.encode(), _END: END.encode()} if special else {}
        return b"".join(
            bytes([token]) if token < _START else names.get(token, b"") for token in tokens
        )

    def prompt(self, messages: Words, *, tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Return the tokens of a conversation; its template knows no tools."""
        del tools
        tokens: list[int] = []
        for message in messages:
            tokens += [_START, *f"{message['role']}\n{message.get('content') or ''}".encode(), _END]
        return [*tokens, _START, *b"assistant\n"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """What the model says and how fast; the `model.gguf` of its packages, as JSON."""

    answers: dict[str, str] = field(default_factory=dict)  # what is asked -> what it says
    otherwise: str = ""  # said to everything else; "" repeats what was asked
    step_ms: float = 0.0  # for one token of every answer that is being written
    slots: int = 4
    context: int = 4_096
    fails: str = ""  # what is asked that makes it fail
    hangs: str = ""  # what is asked that it never answers


class _Writing:
    """An answer that is being written; its ticket too."""

    def __init__(self, ask: Ask, said: Said, tokens: list[int], *, hangs: bool) -> None:
        self.ask = ask
        self.said = said
        self.tokens = tokens
        self.hangs = hangs
        self.at = 0
        self.cancelled = False

    def cancel(self) -> None:
        """Stop writing."""
        self.cancelled = True


class Speller:
    """See the module. A line never chooses it: it offers no candidates.

    Args:
        model: A `Script` as JSON.
        settings: Fields of the script that are different.
    """

    name: ClassVar[str] = "speller"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        told = {**json.loads(model), **settings}
        told.pop("precision", None)
        self.script = decode(Script, told, where="model.gguf")
        self.vocabulary = ByteVocabulary()
        self.context = self.script.context
        self.slots = self.script.slots
        self.most_at_once = 0
        self.closed = False
        self.asked: list[Ask] = []
        self._waiting: deque[_Writing] = deque()
        self._running: list[_Writing] = []
        self._counts = {"prompt_tokens": 0.0, "answer_tokens": 0.0, "cancelled": 0.0}
        self._bell = threading.Condition()
        threading.Thread(target=self._run, name="genba-speller", daemon=True).start()

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:  # noqa: ARG003  # of the protocol
        """Return nothing: this engine is for tests."""
        return ()

    @classmethod
    def version(cls) -> str:
        """Return the version of what it says."""
        return "1"

    def ask(self, ask: Ask, said: Said) -> _Writing:
        """Begin to answer; see `Talks.ask`."""
        if len(ask.tokens) + ask.most > self.context:
            raise Problem(
                "G640",
                f"Prompt and answer have {len(ask.tokens) + ask.most} tokens; "
                f"the model takes {self.context}.",
                tries=["genba explain G640"],
            )
        question = self._question(ask.tokens)
        if self.script.fails and question == self.script.fails:
            raise RuntimeError("the script says that this fails")
        hangs = bool(self.script.hangs) and question == self.script.hangs
        writing = _Writing(ask, said, self._answer(ask, question), hangs=hangs)
        self.asked.append(ask)
        with self._bell:
            self._counts["prompt_tokens"] += len(ask.tokens)
            self._waiting.append(writing)
            self._bell.notify()
        return writing

    def score(self, tokens: Array, *, likeliest: int = 0, since: int = 1) -> Scored:
        """Say how likely tokens are: the less, the larger their number modulo 8."""
        logs = np.array([-(int(t) % 8) / 8 for t in tokens], dtype=np.float64)
        logs[: max(since, 1)] = np.nan
        best = tuple(_alternatives(int(t), -(int(t) % 8) / 8, likeliest) for t in tokens)
        return Scored(log_probability=logs, likeliest=best if likeliest else ())

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Answer a batch of texts; see `Talks.run`."""
        rows = len(tensors["messages"])
        given = tensors.get("given", np.full(rows, b"", dtype=object))
        most = tensors.get("max_tokens", np.full(rows, 128, dtype=np.float32))
        answer = np.empty(rows, dtype=object)
        logs, counts = np.zeros(rows, np.float32), np.zeros((rows, 2), np.int32)
        for row in range(rows):
            prompt = self.vocabulary.prompt(messages_of(tensors["messages"][row]))
            if given[row]:
                written = [*bytes(given[row]), _END]
                scored = self.score(np.array([*prompt, *written]))
                logs[row] = scored.log_probability[len(prompt) :].mean()
            else:
                written, log = self._whole(prompt, int(most[row]))
                logs[row] = log
            answer[row] = self.vocabulary.bytes_of(written)
            counts[row] = len(prompt), len(written)
        return {"answer": answer, "log_probability": logs, "tokens": counts}

    def stats(self) -> Mapping[str, float]:
        """Return counts for monitoring."""
        with self._bell:
            now = {"running": float(len(self._running)), "waiting": float(len(self._waiting))}
            return {**now, **self._counts}

    def close(self) -> None:
        """End the thread; what is being written ends with "cancelled"."""
        with self._bell:
            self.closed = True
            self._bell.notify()

    # Helpers.

    def _question(self, tokens: Array) -> str:
        """Return what the user said last; the whole prompt where it is no conversation."""
        text = self.vocabulary.decode([int(t) for t in tokens], special=True)
        found = text.rpartition(f"{START}user\n")
        return found[2].partition(END)[0] if found[1] else text

    def _answer(self, ask: Ask, question: str) -> list[int]:
        script = self.script
        text = script.answers.get(question, script.otherwise or question)
        if ask.schema is not None:
            text = json.dumps(instance(json.loads(ask.schema)))
        if ask.temperature > 0:
            text += f" {Random(ask.seed).randrange(10**9)}"  # noqa: S311  # nothing is kept secret
        tokens = [*text.encode(), _END]
        while len(tokens) <= ask.least or (ask.ignore_end and len(tokens) <= ask.most):
            tokens = [*tokens[:-1], ord("."), _END]
        return tokens

    def _whole(self, prompt: list[int], most: int) -> tuple[list[int], float]:
        """Wait for an answer and return its tokens and their mean logarithm."""
        pieces: list[Piece] = []
        done = threading.Event()

        def said(piece: Piece) -> None:
            pieces.append(piece)
            if piece.finish:
                done.set()

        self.ask(Ask(tokens=np.array(prompt), most=most), said)
        if not done.wait(_WAIT_S):
            raise TimeoutError("the speller does not answer")
        return [t for p in pieces for t in p.tokens], _LIKELY

    def _run(self) -> None:
        while True:
            with self._bell:
                while not (self._waiting or self._running or self.closed):
                    self._bell.wait()
                while self._waiting and len(self._running) < self.slots:
                    self._running.append(self._waiting.popleft())
                self.most_at_once = max(self.most_at_once, len(self._running))
                running = list(self._running)
            if self.closed:
                for writing in (*running, *self._waiting):
                    writing.said(Piece(finish="cancelled"))
                return
            time.sleep(max(self.script.step_ms / 1_000, 0.001 if _all_hang(running) else 0.0))
            over = [writing for writing in running if not self._step(writing)]
            with self._bell:
                self._running = [writing for writing in self._running if writing not in over]

    def _step(self, writing: _Writing) -> bool:
        """Write one token; say whether more is to come."""
        if writing.cancelled:
            self._counts["cancelled"] += 1
            writing.said(Piece(finish="cancelled"))
            return False
        if writing.hangs:
            return True
        ask, token = writing.ask, writing.tokens[writing.at]
        writing.at += 1
        self._counts["answer_tokens"] += 1
        piece = Piece(
            tokens=(token,),
            log_probability=(_LIKELY,),
            likeliest=(_alternatives(token, _LIKELY, ask.likeliest),) if ask.likeliest else (),
        )
        if token == _END or token in ask.end:
            piece = replace(piece, finish="end")
        elif writing.at >= ask.most:
            piece = replace(piece, finish="length")
        writing.said(piece)
        return not piece.finish


def _all_hang(running: Sequence[_Writing]) -> bool:
    return all(writing.hangs for writing in running)


def _alternatives(token: int, log: float, count: int) -> tuple[tuple[int, float], ...]:
    return tuple(((token + k) % _SIZE, log - _STEP * k) for k in range(count))


_PLAIN: Final[Mapping[str, Any]] = {
    "string": "word", "integer": 7, "number": 0.5, "boolean": True, "null": None,
}  # fmt: skip


def instance(schema: Mapping[str, Any]) -> Any:
    """Return a small value that a schema allows.

    Example:
        >>> instance({"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]})
        {'a': 'x'}
    """
    makers: dict[str, Callable[[Any], Any]] = {
        "const": lambda value: value,
        "enum": lambda values: values[0],
        "anyOf": lambda schemas: instance(schemas[0]),
        "oneOf": lambda schemas: instance(schemas[0]),
    }
    for word, make in makers.items():
        if word in schema:
            return make(schema[word])
    kind = schema.get("type", "object")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: instance(properties[name]) for name in schema.get("required", properties)}
    if kind == "array":
        return [instance(schema.get("items", {"type": "string"}))]
    return _PLAIN[kind]
