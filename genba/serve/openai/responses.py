"""`POST /v1/responses`: the newer form of a conversation. Nothing is kept between two requests."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from genba.serve.lanes.speech import Heard, Told, Wish
from genba.serve.openai.calls import About, Event
from genba.serve.openai.chat import CalledFunction, Message, Part, ToolCall
from genba.serve.openai.fields import Count, Heat, Name, Share, StreamOptions, as_json, bad_field
from genba.serve.openai.tools import Call, CallReader, Function, NamedFunction, NamedTool, tools_of


class Item(msgspec.Struct, frozen=True):
    """One item of the input: a message, a call that was made, or what a call gave."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None

    def message(self, place: str) -> Message:
        """Return the item as a message."""
        if self.type == "message" and self.role is not None:
            return Message(role=self.role, content=self.content)
        if self.type == "function_call" and self.name:
            function = CalledFunction(name=self.name, arguments=self.arguments or "{}")
            call = ToolCall(function=function, id=self.call_id or "")
            return Message(role="assistant", tool_calls=[call])
        if self.type == "function_call_output":
            return Message(role="tool", content=self.output, tool_call_id=self.call_id)
        raise bad_field(f"{place}: an item {self.type!r} is not offered here.", place, code="G782")


class FunctionTool(msgspec.Struct, frozen=True):
    """A tool, written flat."""

    name: Name
    type: Literal["function"] = "function"
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenTool(msgspec.Struct, frozen=True):
    """A tool that shall be called."""

    name: Name
    type: Literal["function"] = "function"


class TextFormat(msgspec.Struct, frozen=True):
    """What an answer looks like."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextWish(msgspec.Struct, frozen=True):
    """How an answer is written."""

    format: TextFormat = TextFormat()
    verbosity: Literal["medium"] | None = None


class ResponseRequest(msgspec.Struct, frozen=True):
    """The body of a request."""

    model: Name
    input: str | Annotated[list[Item], msgspec.Meta(min_length=1, max_length=4_096)]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Heat | None = None
    top_p: Share | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    text: TextWish = TextWish()
    tools: Annotated[list[FunctionTool], msgspec.Meta(max_length=128)] = []
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool = True
    metadata: dict[str, str] | None = None

    def messages(self) -> list[Message]:
        """Return the conversation."""
        if isinstance(self.input, str):
            found = [Message(role="user", content=self.input)]
        else:
            found = [item.message(f"input[{i}]") for i, item in enumerate(self.input)]
        if self.instructions:
            found.insert(0, Message(role="system", content=self.instructions))
        return found

    def schema(self) -> str | None:
        """Return the schema that the answer follows; None where it may be anything."""
        wanted = self.text.format
        if wanted.type == "json_schema" and wanted.schema is None:
            raise bad_field("text.format: schema is missing.", "text.format.schema")
        if wanted.type == "text":
            return None
        return as_json(wanted.schema or {"type": "object"})


class ResponseForm:
    """How an answer looks: items, and in a stream an event for every change of them.

    Args:
        asked: The request.
    """

    done: ClassVar = False

    def __init__(self, asked: ResponseRequest) -> None:
        self.streamed = asked.stream
        self._asked = asked
        choice = asked.tool_choice
        if isinstance(choice, ChosenTool):
            chosen: Any = NamedTool(function=NamedFunction(name=choice.name))
        else:
            chosen = choice
        functions = [
            Function(name=tool.name, description=tool.description or "", parameters=tool.parameters)
            for tool in asked.tools
        ]
        self._tools = tools_of(functions, chosen, several=asked.parallel_tool_calls)
        self._reader = CallReader(self._tools)
        self._number = 0  # of the next event
        self._text: list[str] = []

    def wishes(self) -> list[Wish]:
        """Return what is wanted of the model."""
        schema = self._asked.schema()
        if self._tools.required and schema is not None:
            raise bad_field("A tool is required; so there is no other format.", "text.format")
        words = [m.words(f"input[{i}]") for i, m in enumerate(self._asked.messages())]
        return [
            Wish(
                words=words,
                tools=self._tools.told,
                schema=self._tools.schema or schema,
                plain=schema is None and not self._tools.functions,
            )
        ]

    # In a stream.

    def hears(
        self,
        row: int,  # noqa: ARG002  # there is one only
        heard: Heard,
        about: About,
    ) -> Iterator[Event]:
        """Return the events for a piece of the answer."""
        if not self._number:
            begun = self._response(about, "in_progress", [])
            yield self._event("response.created", response=begun)
            yield self._event("response.in_progress", response=begun)
        words = self._reader.feed(heard.text)
        if words:
            yield from self._say(words, about)

    def ends(self, told: Sequence[Told], about: About) -> Iterator[Event]:
        """Return the events at the end."""
        yield from self.hears(0, Heard(), about)
        rest, calls = self._reader.end()
        if rest or not (calls or self._text):
            yield from self._say(rest, about)
        items: list[dict[str, Any]] = []
        if self._text:
            text = "".join(self._text)
            items.append(_message(text, about, _status(told[0])))
            place = {"item_id": items[0]["id"], "output_index": 0, "content_index": 0}
            yield self._event("response.output_text.done", **place, text=text, logprobs=[])
            part = items[0]["content"][0]
            yield self._event("response.content_part.done", **place, part=part)
            yield self._event("response.output_item.done", output_index=0, item=items[0])
        for call in calls:
            yield from self._call(call, len(items), about)
            items.append(_call(call, len(items), about))
        yield self._closing(told[0], items, about)

    def _say(self, words: str, about: About) -> Iterator[Event]:
        item = _message("", about, "in_progress")
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        if not self._text:
            part = item["content"][0]
            empty = {**item, "content": []}
            yield self._event("response.output_item.added", output_index=0, item=empty)
            yield self._event("response.content_part.added", **place, part=part)
        self._text.append(words)
        yield self._event("response.output_text.delta", **place, delta=words, logprobs=[])

    def _call(self, call: Call, index: int, about: About) -> Iterator[Event]:
        item = _call(call, index, about)
        place = {"item_id": item["id"], "output_index": index}
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=index, item=begun)
        name = "response.function_call_arguments"
        yield self._event(f"{name}.delta", **place, delta=call.arguments)
        yield self._event(f"{name}.done", **place, name=call.name, arguments=call.arguments)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _closing(self, told: Told, items: list[dict[str, Any]], about: About) -> Event:
        status = _status(told)
        response = self._response(about, status, items, told)
        return self._event(f"response.{status}", response=response)

    def _event(self, kind: str, **fields: Any) -> Event:
        number, self._number = self._number, self._number + 1
        return kind, {"type": kind, "sequence_number": number, **fields}

    # At once.

    def whole(self, told: Sequence[Told], about: About) -> dict[str, Any]:
        """Return the answer at once."""
        one, reader = told[0], CallReader(self._tools)
        words = reader.feed(one.text)
        rest, calls = reader.end()
        status = _status(one)
        items: list[dict[str, Any]] = []
        if words + rest or not calls:
            items.append(_message(words + rest, about, status))
        items += [_call(call, number, about) for number, call in enumerate(calls, len(items))]
        return self._response(about, status, items, one)

    def _response(
        self, about: About, status: str, items: list[dict[str, Any]], told: Told | None = None
    ) -> dict[str, Any]:
        asked = self._asked
        why = {"incomplete": {"reason": _incomplete(told)}} if told is not None else {}
        return {
            "id": f"resp_{about.prediction}",
            "object": "response",
            "created_at": about.created,
            "status": status,
            "error": None,
            "incomplete_details": why.get(status),
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": about.model,
            "output": items,
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": {"type": asked.text.format.type}},
            "tool_choice": "auto" if asked.tool_choice is None else asked.tool_choice,
            "tools": asked.tools,
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None if told is None else _usage(told),
            "genba": about.genba if told is None else about.told(told),
        }


def _incomplete(told: Told | None) -> str:
    return "content_filter" if told is not None and told.blocked else "max_output_tokens"


def _status(told: Told) -> str:
    return "incomplete" if told.finish == "length" or told.blocked else "completed"


def _usage(told: Told) -> dict[str, int]:
    prompt, answer = told.counted
    return {"input_tokens": prompt, "output_tokens": answer, "total_tokens": prompt + answer}


def _message(text: str, about: About, status: str) -> dict[str, Any]:
    return {
        "type": "message",
        "id": f"msg_{about.prediction}",
        "status": status,
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    }


def _call(call: Call, number: int, about: About) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{about.prediction}-{number}",
        "call_id": f"call_{about.prediction}-{number}",
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed",
    }
