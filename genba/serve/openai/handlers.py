"""What answers at the addresses of the OpenAI API."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import numpy as np

from genba.core.protocols import Array
from genba.edge.texts import as_bytes, written
from genba.serve.http.request import Request
from genba.serve.http.responses import Refusal, encode_json
from genba.serve.lanes.lines import LineService
from genba.serve.lanes.service import Service
from genba.serve.lanes.speech import Speech, Wish
from genba.serve.oip.inputs import Inputs
from genba.serve.oip.schema import Schema
from genba.serve.openai.calls import Form, TalkCall
from genba.serve.openai.chat import ChatForm, ChatRequest
from genba.serve.openai.completions import CompletionForm, CompletionRequest
from genba.serve.openai.embeddings import EmbeddingRequest, embedded
from genba.serve.openai.fields import read, refuse_large
from genba.serve.openai.responses import ResponseForm, ResponseRequest
from genba.serve.openai.tokenizing import (
    DetokenizeRequest,
    TokenizeRequest,
    detokenized,
    tokenized,
    told,
)
from genba.serve.openai.tokens import Names

if TYPE_CHECKING:
    from genba.serve.http.routes import App

VERSION: Final = "@"  # between a line and one of its packages
_LEAST: Final = 6  # characters of a package's id that are worth looking up
_BYTES_PER_TOKEN: Final = 4
_MESSAGES: Final = "messages"

Texts = Callable[[], Sequence[bytes]]


def chat_completions(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """POST /v1/chat/completions."""
    asked = read(_body(app, request), ChatRequest)
    names = Names()
    form = ChatForm(asked, names)
    wishes = form.wishes()
    said = {"max_tokens": asked.most, "temperature": asked.temperature, "top_p": asked.top_p}
    texts = [written(wishes[0].words)] * len(wishes)
    _ask(app, request, asked.model, form, _Asked(wishes, said, lambda: texts, names))


def completions(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """POST /v1/completions."""
    asked = read(_body(app, request), CompletionRequest)
    names = Names()
    form = CompletionForm(asked, names)
    said = {"max_tokens": asked.max_tokens, "temperature": asked.temperature, "top_p": asked.top_p}

    def texts() -> list[bytes]:
        return [text.encode() for text in form.texts()]

    made = _Asked(form.wishes(), said, texts, names, kept=asked.kept)
    _ask(app, request, asked.model, form, made)


def responses(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """POST /v1/responses."""
    asked = read(_body(app, request), ResponseRequest)
    form = ResponseForm(asked)
    wishes = form.wishes()
    said = {
        "max_tokens": asked.max_output_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
    }
    texts = [written(wishes[0].words)]
    _ask(app, request, asked.model, form, _Asked(wishes, said, lambda: texts, Names()))


def embeddings(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """POST /v1/embeddings."""
    asked = read(_body(app, request), EmbeddingRequest)
    line, version = _line(app, request, asked.model)
    embedded(app, request, line, version, asked)


def tokenize(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """POST /tokenize."""
    asked = read(_body(app, request), TokenizeRequest)
    tokenized(app, request, _only(app, request, asked.model), asked)


def detokenize(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """POST /detokenize."""
    asked = read(_body(app, request), DetokenizeRequest)
    detokenized(app, request, _only(app, request, asked.model), asked)


def tokenizer_info(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """GET /tokenizer_info."""
    talks = _only(app, request, None).model.talks
    assert talks is not None
    app.answer(request, "metadata", 200, encode_json(told(talks)))


def models(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """GET /v1/models: the lines that talk, and each of their packages that answer."""
    allowed: frozenset[str] = request.plan.bound.caller.lines
    listed: list[dict[str, Any]] = []
    for name, line in sorted(app.lines.items()):
        if not allowed or name in allowed:
            listed += _models(line)
    app.answer(request, "metadata", 200, encode_json({"object": "list", "data": listed}))


def model(app: "App", request: Request, names: tuple[str, ...]) -> None:
    """GET /v1/models/{model}."""
    name = unquote(names[0])
    line, version = _line(app, request, name)
    wanted = line.name if version is None else f"{line.name}{VERSION}{version}"
    found = [one for one in _models(line) if one["id"] == wanted]
    if not found:
        raise no_talk(line.name)
    app.answer(request, "metadata", 200, encode_json(found[0]))


def no_talk(line: str) -> Refusal:
    """Refuse to talk to a line that has no language model."""
    what = f"Line {line} has no language model; ask it at /v2/models/{line}/infer."
    refusal = Refusal(400, "G780", what)
    refusal.param = "model"
    return refusal


class _Asked:
    """A request that was read, before it is known which package answers it."""

    def __init__(
        self,
        wishes: Sequence[Wish],
        said: Mapping[str, float | None],
        texts: Texts,
        names: Names,
        *,
        kept: bool = True,
    ) -> None:
        self.wishes = wishes
        self.said = {name: value for name, value in said.items() if value is not None}
        self.kept = kept
        self._texts = texts
        self._names = names

    def inputs(self, call: TalkCall, schema: Schema, access: frozenset[str]) -> Inputs:
        """Return what a lane takes."""
        self._names.vocabulary = schema.vocabulary
        rows = len(self.wishes)
        tensors: dict[str, Array] = {_MESSAGES: as_bytes(self._texts())}
        for name, value in self.said.items():
            if name in schema.parameters:
                tensors[name] = np.full(rows, value, dtype=np.float32)
        made = Inputs(
            tensors, rows, entity_names=None, time=None, wanted=schema.all_outputs("", binary=False)
        )
        most = self.said.get("max_tokens", schema.parameters.get("max_tokens", 0.0))
        made.speech = Speech(
            wishes=self.wishes,
            listener=call,
            access=access,
            kept=self.kept,
            tokens=rows * int(most) + call.size // _BYTES_PER_TOKEN,
        )
        return made


def _ask(app: "App", request: Request, name: str, form: Form, asked: _Asked) -> None:
    if form.streamed and not request.plan.chunks:
        raise Refusal(400, "G708", "An answer in pieces needs HTTP/1.1.")
    line, version = _line(app, request, name)
    call = TalkCall(request, name, form, kept=asked.kept)
    request.body = b""  # what is needed of it was read
    access: frozenset[str] = request.plan.bound.caller.access

    def inputs(schema: Schema) -> Inputs:
        if schema.vocabulary is None:
            raise no_talk(line.name)
        return asked.inputs(call, schema, access)

    line.ask(call, version, inputs)


def _body(app: "App", request: Request) -> bytes | bytearray:
    refuse_large(max(request.size, len(request.body)), app.limits)  # it may have been packed
    if request.plan.deadline_s is None:
        request.deadline = request.received + app.limits.talk_s
    return request.body


def _line(app: "App", request: Request, name: str) -> tuple[LineService, str | None]:
    """Return the line of a model, and the package that shall answer, if one was named.

    Raises:
        Refusal: 404 for a line or package that is not there, 403 for one that the key is not for.
    """
    wanted, _, begins = name.partition(VERSION)
    request.plan.bound.caller.allow_line(wanted)
    line = app.line(wanted)
    if not begins:
        return line, None
    fits = [package for package in line.answering if package.startswith(begins)]
    if len(fits) == 1 and len(begins) >= _LEAST:
        return line, fits[0]
    there = ", ".join(package[:12] for package in line.answering) or "none"
    what = f"No package {begins[:80]!r} answers for line {wanted}; these do: {there}."
    refusal = Refusal(404, "G703", what)
    refusal.param = "model"
    raise refusal


def _only(app: "App", request: Request, name: str | None) -> Service:
    """Return the package of a model; of the only one that the key is for, where none is named.

    Raises:
        Refusal: 400 where there is none, or it is not clear which.
    """
    if name is not None:
        line, version = _line(app, request, name)
        found = [one for package, _, one in line.services() if version in (None, package)][:1]
    else:
        allowed: frozenset[str] = request.plan.bound.caller.lines
        lines = [line for key, line in app.lines.items() if not allowed or key in allowed]
        found = [line.services()[0][2] for line in lines if line.services()]
    found = [service for service in found if service.model.talks is not None]
    if len(found) == 1:
        return found[0]
    if name is not None:
        raise no_talk(name)
    refusal = Refusal(400, "G780", f"There are {len(found)} language models; name one as model.")
    refusal.param = "model"
    raise refusal


def _models(line: LineService) -> list[dict[str, Any]]:
    """Return a line and its packages as models; nothing where it does not talk, or sleeps."""
    made = []
    for package, role, service in line.services():
        placed = line.rollout.canary if role == "canary" else line.rollout.stable
        if service.model.talks is not None and placed is not None:
            about = {
                "package": package,
                "role": role,
                "context": service.model.talks.context,
                "embeddings": service.model.embed is not None,
            }
            frame = {"object": "model", "created": placed.since_ms // 1_000, "owned_by": "genba"}
            if role == "stable":
                made.append({"id": line.name, **frame, "genba": about})
            made.append({"id": f"{line.name}{VERSION}{package}", **frame, "genba": about})
    return made
