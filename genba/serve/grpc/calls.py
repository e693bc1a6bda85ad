"""One question that came over gRPC, and what a refusal looks like there."""

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any, Final

import grpc

from genba.core.protocols import Array
from genba.serve.grpc.messages import message
from genba.serve.grpc.reading import Head, id_of
from genba.serve.grpc.writing import response
from genba.serve.http.responses import Refusal
from genba.serve.oip.schema import Schema, Wanted

_Streamed: Final = message("ModelStreamInferResponse")
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_RETRY: Final = b"Retry-After: "


def status(refusal: Refusal) -> Any:
    """Return the status of a refusal.

    Example:
        >>> status(Refusal(404, "G703", "There is no line pumps.")).name
        'NOT_FOUND'
    """
    code = _CODES.get(refusal.status)
    if code is None:
        clients = refusal.status < 500
        code = grpc.StatusCode.INVALID_ARGUMENT if clients else grpc.StatusCode.INTERNAL
    return code


def details(refusal: Refusal) -> str:
    """Return a refusal as one line of text, with its code.

    Example:
        >>> details(Refusal(404, "G703", "There is no line pumps."))
        'G703: There is no line pumps.'
    """
    return f"{refusal.code}: {refusal.what}"


def trailers(refusal: Refusal) -> tuple[tuple[str, str], ...]:
    r"""Return what a program may want to know of a refusal, as trailing metadata.

    Example:
        >>> trailers(Refusal(503, "G706", "Full.", b"Retry-After: 1\r\n"))
        (('genba-code', 'G706'), ('retry-after', '1'))
    """
    made = [("genba-code", refusal.code)]
    for field in refusal.fields.split(b"\r\n"):
        if field.startswith(_RETRY):
            made.append(("retry-after", field.removeprefix(_RETRY).decode("latin-1")))
    return tuple(made)


class GrpcCall:
    """A question, and the place where its answer goes: a future with the answer or the refusal.

    Args:
        head: What the request says.
        loop: The event loop.
        size: Bytes of the request.
        wait_s: The longest that an answer may take: what the server allows and the client wants.
        streamed: Whether the answer goes into a stream, where it is wrapped.
    """

    __slots__ = (
        "answered", "caller", "deadline", "received", "size", "streamed", "trace", "urgent",
    )  # fmt: skip

    def __init__(
        self,
        head: Head,
        loop: asyncio.AbstractEventLoop,
        size: int,
        *,
        wait_s: float,
        streamed: bool = False,
    ) -> None:
        self.answered: asyncio.Future[bytes | Refusal] = loop.create_future()
        self.received = time.perf_counter()
        self.deadline = self.received + min(wait_s, head.timeout_s)
        self.urgent = not head.batch
        self.size = size
        self.streamed = streamed
        self.trace = ""
        self.caller = ""

    @property
    def gone(self) -> bool:
        """Whether the client has given up."""
        return self.answered.done()

    def write(
        self,
        schema: Schema,
        wanted: Wanted,
        outputs: Mapping[str, Array],
        *,
        line: str,
        parameters: Mapping[str, str],
    ) -> bytes:
        """Encode an inference answer."""
        made = response(schema, wanted, outputs, line=line, parameters=parameters)
        if self.streamed:
            made.parameters["triton_final_response"].bool_param = True
            made = _Streamed(infer_response=made)
        written: bytes = made.SerializeToString()
        return written

    def answer(self, written: bytes) -> None:
        """Give an inference answer, unless the client is gone."""
        if not self.answered.done():
            self.answered.set_result(written)

    def refuse(self, refusal: Refusal) -> None:
        """Give a refusal, unless the client is gone."""
        if not self.answered.done():
            self.answered.set_result(refusal)


def refused_in_stream(refusal: Refusal, body: bytes) -> bytes:
    """Return the answer to one request of a stream that is refused; the stream goes on.

    Args:
        refusal: Why.
        body: The request, whose id the answer has if it can be read.
    """
    made = _Streamed(error_message=details(refusal))
    made.infer_response.id = id_of(body)
    made.infer_response.parameters["genba_code"].string_param = refusal.code
    made.infer_response.parameters["triton_final_response"].bool_param = True
    written: bytes = made.SerializeToString()
    return written


def patience(context: Any, usual_s: float, most_s: float) -> float:
    """Return how long the answer to a call may take.

    Args:
        context: Of the call, which may have a deadline.
        usual_s: Where it has none.
        most_s: However late its deadline is.
    """
    left_s = context.time_remaining()
    return usual_s if left_s is None or not math.isfinite(left_s) else min(left_s, most_s)
