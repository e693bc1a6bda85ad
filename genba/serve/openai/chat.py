"""`POST /v1/chat/completions`: a conversation in, the next message out."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from genba.serve.lanes.speech import Heard, Told, Wish, Written
from genba.serve.openai.calls import About, Event, reason, usage
from genba.serve.openai.fields import (
    Count,
    Few,
    Heat,
    Name,
    Seed,
    Share,
    Stop,
    StreamOptions,
    as_json,
    bad_field,
    stops,
)
from genba.serve.openai.tokens import Names, chat_logprobs
from genba.serve.openai.tools import Call, CallReader, Choice, Tool, tools_of

_TOP: Final = 20


class Part(msgspec.Struct, frozen=True):
    """A part of a message."""

    type: str
    text: str = ""


class CalledFunction(msgspec.Struct, frozen=True):
    """A function that was called."""

    name: Name
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True):
    """A call that a model made earlier in the conversation."""

    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def words(self, place: str) -> dict[str, Any]:
        """Return the message as a template takes it."""
        made: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": text_of(self.content, place),
        }
        if self.tool_calls:
            made["tool_calls"] = [
                {"type": "function", "id": call.id, "function": msgspec.to_builtins(call.function)}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        return made


class JsonSchema(msgspec.Struct, frozen=True):
    """A schema that an answer follows."""

    schema: dict[str, Any]
    name: str = ""
    description: str = ""
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """What an answer looks like."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """The body of a request."""

    model: Name
    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=4_096)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Heat | None = None
    top_p: Share | None = None
    n: Few = 1
    stop: str | Stop | None = None
    seed: Seed | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    logprobs: bool = False
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=_TOP)] = 0
    response_format: ResponseFormat = ResponseFormat()
    tools: Annotated[list[Tool], msgspec.Meta(max_length=128)] = []
    tool_choice: Choice | None = None
    parallel_tool_calls: bool = True
    min_tokens: Count = 0
    ignore_eos: bool = False

    @property
    def most(self) -> int | None:
        """New tokens at most."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


def text_of(content: str | list[Part] | None, place: str) -> str:
    """Return the text of a message.

    Raises:
        Refusal: 400 for what is no text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type not in ("text", "input_text", "output_text"):
            what = f"{place}: a part is {part.type}; this server takes text."
            raise bad_field(what, place, code="G782")
    return "".join(part.text for part in content)


def schema_of(format_: ResponseFormat) -> str | None:
    """Return the schema that an answer follows; None where it may be anything."""
    if format_.type == "text":
        return None
    if format_.type == "json_object":
        return '{"type":"object"}'
    if format_.json_schema is None:
        raise bad_field("response_format: json_schema is missing.", "response_format")
    return as_json(format_.json_schema.schema)


class ChatForm:
    """How answers to a conversation look.

    Args:
        asked: The request.
        names: Tells what tokens are called.
    """

    done: ClassVar = True

    def __init__(self, asked: ChatRequest, names: Names) -> None:
        self.streamed = asked.stream
        self._asked = asked
        self._names = names
        self._tools = tools_of(
            [tool.function for tool in asked.tools],
            asked.tool_choice,
            several=asked.parallel_tool_calls,
        )
        self._readers: dict[int, CallReader] = {}

    def wishes(self) -> list[Wish]:
        """Return what is wanted of the model.

        Raises:
            Refusal: 400 for what cannot be had together.
        """
        asked, schema = self._asked, schema_of(self._asked.response_format)
        if self._tools.required and schema is not None:
            raise bad_field("A tool is required; so there is no other format.", "response_format")
        if asked.top_logprobs and not asked.logprobs:
            raise bad_field("top_logprobs needs logprobs.", "top_logprobs")
        words = [m.words(f"messages[{i}]") for i, m in enumerate(asked.messages)]
        return [
            Wish(
                words=words,
                tools=self._tools.told,
                stop=stops(asked.stop),
                seed=None if asked.seed is None else asked.seed + number,
                least=asked.min_tokens,
                ignore_end=asked.ignore_eos,
                logs=asked.logprobs,
                likeliest=asked.top_logprobs,
                schema=self._tools.schema or schema,
                plain=schema is None and not self._tools.functions,
            )
            for number in range(asked.n)
        ]

    def hears(self, row: int, heard: Heard, about: About) -> Iterator[Event]:
        """Return the events for a piece of an answer."""
        if row not in self._readers:
            self._readers[row] = CallReader(self._tools)
            yield self._chunk(about, row, {"role": "assistant", "content": ""})
        words = self._readers[row].feed(heard.text)
        logs = self._logs(heard.tokens)
        if words or logs is not None:
            yield self._chunk(about, row, {"content": words}, logs=logs)

    def ends(self, told: Sequence[Told], about: About) -> Iterator[Event]:
        """Return the events at the end."""
        for row, one in enumerate(told):
            yield from self.hears(row, Heard(), about)
            rest, calls = self._readers[row].end()
            if rest:
                yield self._chunk(about, row, {"content": rest})
            if calls:
                listed = _listed(calls, about, row, numbered=True)
                yield self._chunk(about, row, {"tool_calls": listed})
            finish = "tool_calls" if calls else reason(one)
            yield self._chunk(about, row, {}, finish=finish, told=one)
        if self._asked.stream_options.include_usage:
            frame = self._frame(about, "chat.completion.chunk")
            yield "", {**frame, "choices": [], "usage": usage(told)}

    def whole(self, told: Sequence[Told], about: About) -> dict[str, Any]:
        """Return the answers at once."""
        choices = [self._choice(row, one, about) for row, one in enumerate(told)]
        frame = self._frame(about, "chat.completion")
        first = {**about.told(told[0])}
        return {**frame, "choices": choices, "usage": usage(told), "genba": first}

    def _choice(self, row: int, told: Told, about: About) -> dict[str, Any]:
        reader = CallReader(self._tools)
        words = reader.feed(told.text)
        rest, calls = reader.end()
        message: dict[str, Any] = {
            "role": "assistant",
            "content": (words + rest) or (None if calls else ""),
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = _listed(calls, about, row, numbered=False)
        return {
            "index": row,
            "message": message,
            "logprobs": self._logs(told.tokens),
            "finish_reason": "tool_calls" if calls else reason(told),
            **_own(about, row, told),
        }

    def _logs(self, tokens: Sequence[Written]) -> dict[str, Any] | None:
        if not self._asked.logprobs:
            return None
        return {"content": chat_logprobs(tokens, self._names), "refusal": None}

    def _frame(self, about: About, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{about.prediction}",
            "object": kind,
            "created": about.created,
            "model": about.model,
            "system_fingerprint": about.package[:16],
        }

    def _chunk(
        self,
        about: About,
        row: int,
        delta: dict[str, Any],
        *,
        logs: dict[str, Any] | None = None,
        finish: str | None = None,
        told: Told | None = None,
    ) -> Event:
        choice = {"index": row, "delta": delta, "logprobs": logs, "finish_reason": finish}
        made: dict[str, Any] = self._frame(about, "chat.completion.chunk")
        made["choices"] = [choice]
        if self._asked.stream_options.include_usage:
            made["usage"] = None
        if told is not None:
            choice |= _own(about, row, told)
            made["genba"] = about.told(told) | {"prediction": _id(about, row)}
        elif "role" in delta:
            made["genba"] = {**about.genba, "prediction": _id(about, row)}
        return "", made


def _id(about: About, row: int) -> str | None:
    return about.prediction_of(row) if about.kept else None


def _own(about: About, row: int, told: Told) -> dict[str, Any]:
    """Return the fields of our own in a choice: of several, each is a prediction of its own."""
    return {"genba": {**about.told(told), "prediction": _id(about, row)}}


def _listed(
    calls: Sequence[Call], about: About, row: int, *, numbered: bool
) -> list[dict[str, Any]]:
    return [
        {
            **({"index": number} if numbered else {}),
            "id": f"call_{about.prediction_of(row)}-{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for number, call in enumerate(calls)
    ]
