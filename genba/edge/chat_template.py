"""Chat templates: how a model wants a conversation written down.

A template is a program that came with a file. It runs in Jinja's sandbox, which gives it the
messages and nothing else; what would let it write without bounds is refused.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from genba.core.problem import Problem
from genba.core.talk import Words

_MOST_TEMPLATE: Final = 200_000  # characters
_MOST_PROMPT: Final = 4_000_000  # characters that a template may write
#: For a model without a template that has these tokens.
_CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
#: For a model that has learnt no conversations.
_PLAIN: Final = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}\n"
    "{% endfor %}Assistant:"
)


class ChatTemplate:
    r"""A template that is ready to write conversations down.

    Args:
        source: The template; a plain one is used where the file has none.
        names: Texts it may refer to: `bos_token`, `eos_token`.
        special: The special tokens of the model by name.

    Raises:
        Problem: G643 when it is no template.

    Example:
        >>> template = ChatTemplate(None, names={}, special={})
        >>> template.render([{"role": "user", "content": "Hello"}])
        'User: Hello\nAssistant:'
    """

    def __init__(
        self, source: Any, *, names: Mapping[str, str], special: Mapping[str, int]
    ) -> None:
        if source is None:
            source = _CHATML if {"<|im_start|>", "<|im_end|>"} <= special.keys() else _PLAIN
        if not isinstance(source, str) or len(source) > _MOST_TEMPLATE:
            raise _refused("It is no text of a usual length.")
        self._names = dict(names)
        try:
            self._template = _environment().from_string(source)
        except (TemplateError, RecursionError) as error:
            raise _refused(str(error)) from error

    def render(self, messages: Words, *, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Return the conversation as the model wants it, up to where the answer begins.

        Raises:
            Problem: G643 when the template refuses the messages.
        """
        parts, length = [], 0
        try:
            for part in self._template.generate(
                messages=messages, tools=list(tools) or None, add_generation_prompt=True,
                **self._names,
            ):  # fmt: skip
                parts.append(part)
                length += len(part)
                if length > _MOST_PROMPT:
                    raise SecurityError(f"it writes more than {_MOST_PROMPT} characters")
        except (TemplateError, TypeError, ValueError, KeyError, ArithmeticError) as error:
            raise _refused(str(error)) from error
        return "".join(parts)


class _Sandbox(ImmutableSandboxedEnvironment):  # type: ignore[misc]  # has no types here
    """Jinja's sandbox without the operators that make much out of little."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse powers, repeated texts and printf on texts; numbers multiply as ever."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" or not numbers:
            raise SecurityError(f"{operator} may only be used on numbers, and ** not at all")
        return super().call_binop(context, operator, left, right)


def _environment() -> Any:
    made = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        autoescape=False,
    )
    made.filters["tojson"] = _to_json
    for name in ("center", "indent", "format", "xmlattr", "urlize", "wordwrap", "pprint"):
        del made.filters[name]
    made.globals = {"raise_exception": _raise, "range": made.globals["range"],
                    "namespace": made.globals["namespace"]}  # fmt: skip
    return made


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=min(indent, 8) if indent else None)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _refused(why: str) -> Problem:
    return Problem(
        "G643",
        "The chat template of the language model cannot write this conversation down.",
        why=why[:200],
        tries=["use the roles system, user and assistant in turn", "genba explain G643"],
    )
