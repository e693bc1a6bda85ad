"""Tools of the OpenAI API: how a model is made to call them, and its calls in what it writes.

A model writes a call as JSON between `<tool_call>` and `</tool_call>`, as the Hermes, Qwen and
SmolLM families were trained to, or as one JSON object and nothing else. Where a call is required
the answer is constrained to the schema of a call: then there is one, or the request ends with an
error, but never with words in its place.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from genba.serve.http.responses import Refusal
from genba.serve.openai.fields import Name, as_json, bad_field

_OPEN: Final = "<tool_call>"
_CALL: Final = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_ARGUMENTS: Final = ("arguments", "parameters")


class Function(msgspec.Struct, frozen=True):
    """What a model may call."""

    name: Name
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool."""

    function: Function
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct, frozen=True):
    """The name of a function."""

    name: Name


class NamedTool(msgspec.Struct, frozen=True):
    """A tool that shall be called."""

    function: NamedFunction
    type: Literal["function"] = "function"


Choice = Literal["none", "auto", "required"] | NamedTool


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call that a model wrote."""

    name: str
    arguments: str  # JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """The tools of a request."""

    functions: tuple[Function, ...] = ()
    required: bool = False
    several: bool = True

    @property
    def names(self) -> frozenset[str]:
        """What may be called."""
        return frozenset(function.name for function in self.functions)

    @property
    def told(self) -> tuple[Mapping[str, Any], ...]:
        """What a template is given."""
        return tuple(
            {
                "type": "function",
                "function": {
                    "name": one.name,
                    "description": one.description,
                    "parameters": one.parameters or _ANY_OBJECT,
                },
            }
            for one in self.functions
        )

    @property
    def schema(self) -> str | None:
        """What an answer must look like that is a call; None where it may be words."""
        if not self.required:
            return None
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": one.name}, "arguments": _parameters(one)},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for one in self.functions
        ]
        return as_json(calls[0] if len(calls) == 1 else {"anyOf": calls})


_ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


def _parameters(function: Function) -> Mapping[str, Any]:
    return function.parameters or _ANY_OBJECT


def tools_of(
    functions: Sequence[Function], choice: Choice | None, *, several: bool = True
) -> Tools:
    """Return the tools that a model is told of.

    Args:
        functions: All tools of the request.
        choice: Which of them shall be called, if any.
        several: Whether one answer may have several calls.

    Raises:
        Refusal: 400 for a choice among no tools, or of one that is not there.
    """
    if choice in (None, "auto", "none") and not isinstance(choice, NamedTool):
        given = () if choice == "none" else tuple(functions)
        return Tools(functions=given, several=several)
    if not functions:
        raise bad_field("A tool is required, but there are none.", "tool_choice")
    if not isinstance(choice, NamedTool):
        return Tools(functions=tuple(functions), required=True, several=several)
    chosen = [one for one in functions if one.name == choice.function.name]
    if not chosen:
        raise bad_field(f"There is no tool {choice.function.name!r}.", "tool_choice")
    return Tools(functions=tuple(chosen[:1]), required=True, several=False)


def not_called() -> Refusal:
    """Refuse because the model did not call a tool that was required."""
    what = "The model did not finish the call of a tool that was required; allow it more tokens."
    return Refusal(422, "G781", what)


class CallReader:
    """Tells words from calls while an answer is written.

    Example:
        >>> reader = CallReader(Tools(functions=(Function(name="add"),)))
        >>> reader.feed("Well: <tool"), reader.feed('_call>{"name": "add", "arguments": {}}')
        ('Well: ', '')
        >>> reader.end()
        ('', (Call(name='add', arguments='{}'),))
    """

    __slots__ = ("_held", "_said", "_tools")

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._held = ""  # what may be a call
        self._said = False

    def feed(self, text: str) -> str:
        """Take text and return the words in it."""
        if not self._tools.functions:
            return text
        if self._tools.required:
            self._held += text
            return ""
        self._held += text
        begun = self._held.lstrip()
        if not self._said and (not begun or begun[0] in "{["):
            return ""
        at = self._held.find(_OPEN)
        end = at if at >= 0 else len(self._held) - _beginning(self._held)
        words, self._held = self._held[:end], self._held[end:]
        self._said = self._said or bool(words.strip())
        return words

    def end(self) -> tuple[str, tuple[Call, ...]]:
        """Return the words that were held back after all, and the calls.

        Raises:
            Refusal: 422 when a call was required and there is none.
        """
        held, self._held = self._held, ""
        found = self._calls(held)
        if self._tools.required and not found:
            raise not_called()
        if not self._tools.several:
            found = found[:1]
        return ("", tuple(found)) if found else (held, ())

    def _calls(self, text: str) -> list[Call]:
        """Return the calls in a text; none where one of them is not what was offered."""
        written = _CALL.findall(text) if _OPEN in text else [text.strip()]
        calls: list[Call] = []
        for one in written:
            try:
                read = json.loads(one)
            except (ValueError, RecursionError):
                return []
            for call in read if isinstance(read, list) else [read]:
                made = self._call(call)
                if made is None:
                    return []
                calls.append(made)
        return calls

    def _call(self, read: Any) -> Call | None:
        if not isinstance(read, dict) or read.get("name") not in self._tools.names:
            return None
        arguments: Any = next((read[name] for name in _ARGUMENTS if name in read), {})
        if isinstance(arguments, str):
            return Call(name=read["name"], arguments=arguments)
        return Call(name=read["name"], arguments=json.dumps(arguments, ensure_ascii=False))


def _beginning(text: str) -> int:
    """Return how many characters at the end of a text a call could begin with."""
    most = min(len(text), len(_OPEN) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(_OPEN[:n])), 0)
