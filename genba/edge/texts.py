"""Text as packages take and give it: bytes in arrays, bytes in files, messages in JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array

BYTES: Final = "BYTES"
USER: Final = "user"
_LENGTH: Final = np.dtype("<u4")

Message = Mapping[str, Any]


def as_bytes(values: Sequence[Any] | Array) -> Array:
    """Return texts as packages take them: an object array of UTF-8 bytes.

    Args:
        values: Texts as `str` or bytes; None is nothing.

    Example:
        >>> as_bytes(["ja", b"nein", None]).tolist()
        [b'ja', b'nein', b'']
    """
    found = np.empty(len(values), dtype=object)
    for at, value in enumerate(values):
        found[at] = value if isinstance(value, bytes) else str(value or "").encode()
    return found


def as_text(value: Any) -> str:
    """Return one value of such an array as text; what is no UTF-8 is replaced.

    Example:
        >>> as_text(b"ja"), len(as_text(bytes([255]))), as_text(None)
        ('ja', 1, '')
    """
    if value is None:
        return ""
    return bytes(value).decode("utf-8", "replace") if not isinstance(value, str) else value


def pack(values: Array) -> Array:
    """Return bytes of any content as numbers that fit into a tensor file.

    Returns:
        uint8 [N, 4 + longest]: the length of each (little endian, as in the Open Inference
        Protocol), its bytes, zeros.

    Example:
        >>> pack(as_bytes(["ab", ""])).tolist()
        [[2, 0, 0, 0, 97, 98], [0, 0, 0, 0, 0, 0]]
    """
    longest = max((len(value) for value in values), default=0)
    rows = np.zeros((len(values), _LENGTH.itemsize + longest), dtype=np.uint8)
    for row, value in zip(rows, values, strict=True):
        data = np.array(len(value), dtype=_LENGTH).tobytes() + value
        row[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return rows


def unpack(rows: Array) -> Array:
    """Return the bytes that `pack` has packed.

    Raises:
        Problem: G604 when a length is larger than what is there.

    Example:
        >>> unpack(pack(as_bytes(["ab", ""]))).tolist()
        [b'ab', b'']
    """
    found = np.empty(len(rows), dtype=object)
    for at, row in enumerate(np.asarray(rows, dtype=np.uint8)):
        data = row.tobytes()
        length = int.from_bytes(data[: _LENGTH.itemsize], "little")
        if row.ndim != 1 or len(data) < _LENGTH.itemsize + length:
            raise Problem(
                "G604",
                "A text in a tensor file of the package is damaged.",
                why=f"It claims {length} bytes of {len(data)}.",
                tries=["fetch the package again", "genba explain G604"],
            )
        found[at] = data[_LENGTH.itemsize :][:length]
    return found


def messages_of(value: Any) -> list[dict[str, Any]]:
    """Read a conversation as a package is given it: JSON messages, or what the user says.

    Args:
        value: Text or UTF-8 bytes.

    Example:
        >>> messages_of(b"Hello?")
        [{'role': 'user', 'content': 'Hello?'}]
        >>> messages_of('[{"role": "user", "content": "Hello?"}]')
        [{'role': 'user', 'content': 'Hello?'}]
    """
    text = as_text(value)
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list) and all(isinstance(m, dict) and "role" in m for m in found):
            return found
    return [{"role": USER, "content": text}]


def written(messages: Sequence[Message]) -> bytes:
    """Return messages as a package is given them.

    Example:
        >>> written([{"role": "user", "content": "Müsli?"}]).decode()
        '[{"role":"user","content":"Müsli?"}]'
    """
    return json.dumps(list(messages), ensure_ascii=False, separators=(",", ":")).encode()


def question_of(messages: Sequence[Message]) -> str:
    """Return what the user said last.

    Content may be a text, or parts of which those of type "text" count.

    Example:
        >>> question_of([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        'a'
    """
    for message in reversed(messages):
        if message.get("role") == USER:
            return content_of(message)
    return content_of(messages[-1]) if messages else ""


def content_of(message: Message) -> str:
    """Return the text of a message.

    Example:
        >>> content_of({"role": "user", "content": [{"type": "text", "text": "a"}]})
        'a'
    """
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")
