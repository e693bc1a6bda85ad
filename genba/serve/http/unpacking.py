"""Requests whose body was made smaller by the client: unpacked before anything else reads them."""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from genba.serve.http.compression import unpack
from genba.serve.http.request import Request
from genba.serve.http.responses import MISTAKE, Refusal, overloaded

if TYPE_CHECKING:
    from genba.serve.http.routes import App

Handler = Callable[["App", Request, tuple[str, ...]], None]

_log = logging.getLogger("genba.serve")
_PLAIN: Final = (b"", b"identity")
_KNOWN: Final = (b"gzip", b"x-gzip", b"deflate")
_TOO_LARGE: Final = 413


def unpacking(handler: Handler, encoding: bytes) -> Handler:
    """Return what unpacks the body of a request for a handler.

    Args:
        handler: Takes the plain body.
        encoding: Content-Encoding of the request.

    Raises:
        Refusal: 415 for an encoding that there is not.
    """
    encoding = encoding.strip().lower()
    if encoding in _PLAIN:
        return handler
    if encoding not in _KNOWN:
        what = f"The body is {encoding.decode('latin-1')[:80]!r}; gzip and deflate are taken."
        raise Refusal(415, "G748", what, b"Accept-Encoding: gzip, deflate\r\n")
    return functools.partial(_unpack, handler)


def _unpack(handler: Handler, app: "App", request: Request, names: tuple[str, ...]) -> None:
    """Unpack a small body at once, and any other on a thread."""
    most = min(app.limits.parse_bytes, app.limits.body_bytes)
    try:
        body = unpack(request.body, most)
    except Refusal as refusal:
        if refusal.status != _TOO_LARGE or most == app.limits.body_bytes:
            raise
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, unpack, request.body, app.limits.body_bytes)
        future.add_done_callback(functools.partial(_unpacked, handler, app, request, names))
        return
    _hold(app, request, body)
    handler(app, request, names)


def _unpacked(
    handler: Handler,
    app: "App",
    request: Request,
    names: tuple[str, ...],
    future: "asyncio.Future[bytes]",
) -> None:
    try:
        _hold(app, request, future.result())
        handler(app, request, names)
    except Refusal as refusal:
        app.answer(request, "none", refusal.status, refusal.body(), fields=refusal.fields)
    except Exception:  # noqa: BLE001  # our mistake must not leave the client waiting
        _log.exception("an error in the server")
        app.answer(request, "none", 500, MISTAKE.body())


def _hold(app: "App", request: Request, body: bytes) -> None:
    """Count a body for what it is in memory."""
    more = max(0, len(body) - request.size)
    if app.held_bytes + more > app.limits.held_bytes or not request.connection.has_room(more):
        raise overloaded("The server holds as many requests as it has memory for.")
    request.size += more
    request.body = body
