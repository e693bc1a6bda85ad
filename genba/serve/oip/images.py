"""Images in requests: files or pixels until the package is known, then pixels of its size."""

import binascii
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

import numpy as np

from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.images import decode, encode_png
from genba.serve.http.responses import Refusal
from genba.serve.oip.schema import Schema, Wanted
from genba.serve.oip.tensors import Body, bad

#: A file as it was sent, the same as base64 text, or its pixels (UINT8 [height, width, 3]).
Picture = bytes | str | Array

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_BINARY: Final = b"application/octet-stream"
_LARGEST: Final = float(np.finfo(np.float32).max)
_KNOWN_QUERIES: Final = ("outputs", "entity", "time", "id")


def is_file(body: Body, kind: bytes, head_length: bytes | None) -> bool:
    """Say whether the body of a request to a package that takes images is an image itself.

    Whoever forgets the Content-Type is understood too: JSON never begins like an image.

    Args:
        body: Of the request.
        kind: Its Content-Type.
        head_length: Its Inference-Header-Content-Length.

    Example:
        >>> is_file(b"...", b"image/png", None), is_file(b'{"inputs": []}', b"", None)
        (True, False)
    """
    if head_length is not None:
        return head_length == b"0"
    kind = kind.partition(b";")[0].strip().lower()
    return kind.startswith(b"image/") or kind == _BINARY or body.startswith((_JPEG, _PNG))


class Query:
    """What may be said in the address of a request whose body is an image."""

    __slots__ = ("entity", "parameters", "time_ms", "wanted")

    def __init__(self, target: bytes, schema: Schema) -> None:
        """Read `?outputs=score,map&entity=camera-1&time=MS&id=ID` and parameters by their names.

        Raises:
            Refusal: 400 for a name that is not known or a value that is none.
        """
        pairs = dict(parse_qsl(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True))
        known = (*_KNOWN_QUERIES, *schema.parameters)
        for name in pairs:
            if name not in known:
                near = nearest(name, known)
                hint = f"; did you mean {near}?" if near else f". Known: {', '.join(known)}."
                raise bad(f"The address has a field {name[:80]!r} that means nothing{hint}")
        self.parameters = {
            name: _number(name, pairs[name]) for name in schema.parameters if name in pairs
        }
        self.entity = pairs.get("entity")
        self.time_ms = _whole("time", pairs["time"]) if "time" in pairs else None
        names = _outputs(pairs.get("outputs", ""), schema) or schema.read_outputs
        self.wanted = Wanted(pairs.get("id", "")[:128], names, (False,) * len(names))


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= _LARGEST:
        raise bad(f"The field {name!r} of the address must be a number, not {text[:80]!r}.")
    return value


def _whole(name: str, text: str) -> int:
    """Read a whole number; what lies beyond 48 bits stays beyond it."""
    return int(min(max(_number(name, text), -(2.0**48)), 2.0**48))


def _outputs(text: str, schema: Schema) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in schema.outputs:
            raise unknown_output(name, schema)
    return names


def unknown_output(name: str, schema: Schema) -> Refusal:
    """Refuse to give what a package does not have."""
    near = nearest(name, schema.output_names)
    hint = f"; did you mean {near}?" if near else f". It has {list(schema.outputs)}."
    return bad(f"The model has no output {name[:80]!r}{hint}")


# What follows takes milliseconds and is never called on the event loop.


def files(pictures: Sequence[Picture]) -> tuple[Picture, ...]:
    """Return pictures with base64 text decoded, as they are kept.

    Raises:
        Problem: G730 for text that is not base64.
    """
    return tuple(
        _of_base64(picture, number) if isinstance(picture, str) else picture
        for number, picture in enumerate(pictures, start=1)
    )


def _of_base64(text: str, number: int) -> bytes:
    try:
        return binascii.a2b_base64(text.strip(), strict_mode=True)
    except ValueError as error:
        raise Problem(
            "G730",
            f"Image {number} of the request is not base64.",
            why=str(error),
            tries=["base64 -w0 part.png", "genba explain G730"],
        ) from error


def pixels(pictures: Sequence[Picture], size: int) -> Array:
    """Return pictures as a package takes them: UINT8 [pictures, size, size, 3].

    Args:
        pictures: Files or pixels; pixels of another size are scaled as files are.
        size: Working size of the package.

    Raises:
        Problem: G23x for a file that is no image, too large or damaged; it says which one.
    """
    made = np.empty((len(pictures), size, size, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        try:
            made[index] = _scaled(picture, size)
        except Problem as problem:
            if len(pictures) == 1:
                raise
            which = f"Image {index + 1} of {len(pictures)}: {problem.what}"
            raise Problem(
                problem.code, which, where=problem.where, why=problem.why, tries=problem.tries
            ) from problem
    return made


def _scaled(picture: Picture, size: int) -> Array:
    if isinstance(picture, np.ndarray):
        if picture.shape == (size, size, 3):
            return picture
        picture = encode_png(picture)
    assert isinstance(picture, bytes)
    return decode(picture, size)


def kept(pictures: Sequence[Picture]) -> Array:
    """Return pictures as files, the way they are captured: object [pictures].

    What was sent as a file is kept as it is, byte for byte; pixels become PNG, which loses nothing.
    """
    made = np.empty(len(pictures), dtype=object)
    for index, picture in enumerate(pictures):
        made[index] = encode_png(picture) if isinstance(picture, np.ndarray) else picture
    return made


def weight(pictures: Sequence[Picture]) -> int:
    """Return the bytes that pictures hold in memory."""
    return sum(p.nbytes if isinstance(p, np.ndarray) else len(p) for p in pictures)
