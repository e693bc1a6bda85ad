"""Reading requests of the OpenAI API: what is understood, what means nothing, what is refused.

What is asked for and cannot be had is refused, never left out in silence. So every field of a
request is understood here, or known to change no answer, or it has the value that asks for nothing.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec

from genba.core.codec import nearest
from genba.serve.http.responses import Refusal
from genba.serve.limits import Limits
from genba.serve.oip.tensors import Body

T = TypeVar("T", bound=msgspec.Struct)

#: Change nothing in an answer here: who asks, and how a service of others keeps its books.
_HARMLESS: Final = frozenset(
    {
        "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
        "service_tier", "store", "user",
    }
)  # fmt: skip
#: Values that ask for nothing, of fields that are not offered.
_NOTHING: Final[Mapping[str, tuple[Any, ...]]] = {
    "audio": (),
    "background": (False,),
    "best_of": (1,),
    "conversation": (),
    "frequency_penalty": (0,),
    "function_call": (),
    "functions": (),
    "include": ([],),
    "logit_bias": ({},),
    "max_tool_calls": (),
    "min_p": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "previous_response_id": (),
    "prompt": (),
    "reasoning": ({},),
    "reasoning_effort": (),
    "repetition_penalty": (1,),
    "suffix": ("",),
    "top_k": (0, -1),
    "truncation": ("disabled",),
    "use_beam_search": (False,),
    "verbosity": (),
    "web_search_options": (),
}
Few = Annotated[int, msgspec.Meta(ge=1, le=32)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Heat = Annotated[float, msgspec.Meta(ge=0, le=2)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Stop = Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(max_length=16)]


class StreamOptions(msgspec.Struct, frozen=True):
    """What comes with a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False  # padding against listeners; TLS is for that


def refuse_large(size: int, limits: Limits) -> None:
    """Refuse a request with more bytes than are read on the event loop.

    Raises:
        Refusal: 413.
    """
    if size > limits.talk_bytes:
        raise Refusal(413, "G708", f"The request is larger than {limits.talk_bytes} bytes.")


def bad_field(what: str, param: str, *, code: str = "G704") -> Refusal:
    """Refuse a request because of one of its fields."""
    refusal = Refusal(400, code, what)
    refusal.param = param
    return refusal


def read(body: Body, kind: type[T]) -> T:
    """Read a request.

    Args:
        body: JSON.
        kind: What it should be.

    Raises:
        Refusal: 400: G704 for what is malformed, G782 for what is not offered.
    """
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Refusal(400, "G704", f"The request is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise Refusal(400, "G704", "The request is not a JSON object.")
    known = {name: raw[name] for name in raw if _is_wanted(name, raw[name], kind)}
    try:
        return msgspec.convert(known, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        what, _, path = str(error).partition(" - at ")
        where = path.strip("`").removeprefix("$.")
        told = f"{where}: {what}." if where else f"{what}."
        raise bad_field(told, where or _named(what)) from error


def _is_wanted(name: str, value: Any, kind: type[msgspec.Struct]) -> bool:
    """Say whether a field is to be read; refuse one that asks for what is not offered."""
    if name in kind.__struct_fields__:
        return value is not None
    if name in _HARMLESS or value is None or value in _NOTHING.get(name, ()):
        return False
    near = nearest(name, list(kind.__struct_fields__))
    hint = f"; did you mean {near}?" if near and name not in _NOTHING else "."
    raise bad_field(f"{name} is not offered here{hint}", name, code="G782")


def _named(what: str) -> str:
    """Return the field that a complaint about a missing one names.

    Example:
        >>> _named("Object missing required field `model`")
        'model'
    """
    return what.partition("`")[2].partition("`")[0]


def as_json(value: Any) -> str:
    """Return a schema as JSON.

    Raises:
        Refusal: 400 for one that is nested too deeply.
    """
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError as error:
        raise Refusal(400, "G704", "A schema is nested too deeply.") from error


def stops(given: str | list[str] | None) -> tuple[str, ...]:
    """Return the texts that end an answer."""
    if not given:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)
