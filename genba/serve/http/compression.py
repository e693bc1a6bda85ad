"""Bodies that were made smaller by the client, or by us: gzip and deflate (RFC 1952, RFC 1950).

What a body unpacks to is bounded like a body that was not packed, so that a small one cannot fill
the memory.
"""

import functools
import zlib
from typing import Final

from genba.serve.http.responses import Refusal
from genba.serve.oip.answers import Answer
from genba.serve.oip.tensors import Body

_EITHER: Final = 47  # of zlib's: gzip or deflate, whichever it is
_BITS: Final = {b"gzip": 31, b"deflate": 15}
_REFUSED: Final = (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
_LEVEL: Final = 1  # numbers hardly get smaller at the others
_WORTH_BYTES: Final = 1_024  # smaller answers fit into one packet anyway


def unpack(body: Body, most: int) -> bytes:
    """Return what a body unpacks to.

    Args:
        body: As it was sent.
        most: Bytes that it may unpack to.

    Raises:
        Refusal: 400 for a damaged body, 413 for one that unpacks to more.

    Example:
        >>> unpack(zlib.compress(b"hello"), 10)
        b'hello'
    """
    stream = zlib.decompressobj(_EITHER)
    try:
        made = stream.decompress(body, most)
    except zlib.error as error:
        raise Refusal(400, "G748", f"The body cannot be unpacked: {error}.") from error
    if stream.unconsumed_tail or (not stream.eof and len(made) == most):
        raise Refusal(413, "G708", f"The body unpacks to more than {most} bytes.")
    if not stream.eof or stream.unused_data:
        raise Refusal(400, "G748", "The body ends before it is unpacked, or goes on after that.")
    return made


def pack(answer: Answer, accepts: bytes) -> Answer:
    """Return an answer as the client would rather have it.

    Args:
        answer: As it is.
        accepts: Accept-Encoding of the request.
    """
    encoding = _chosen(accepts)
    if encoding is None or sum(map(len, answer.body)) < _WORTH_BYTES:
        return answer
    stream = zlib.compressobj(_LEVEL, wbits=_BITS[encoding])
    body = [*map(stream.compress, answer.body), stream.flush()]
    fields = b"%bContent-Encoding: %b\r\nVary: Accept-Encoding\r\n" % (answer.fields, encoding)
    return Answer((b"".join(body),), answer.kind, fields)


@functools.lru_cache(maxsize=256)
def _chosen(accepts: bytes) -> bytes | None:
    """Return the encoding that a client takes, the first that it names; None for none."""
    for entry in accepts.lower().split(b","):
        name, _, quality = entry.partition(b";")
        if name.strip() in _BITS and quality.strip() not in _REFUSED:
            return name.strip()
    return None
