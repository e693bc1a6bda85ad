"""What devices ask a factory for: metadata, content, and somebody who takes their telemetry.

All of it touches the disk, so all of it happens on a thread; the event loop only passes requests
on, a bounded number at a time.
"""

import asyncio
import functools
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from genba.core.digest import is_digest
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.serve.edge.intake import Intake
from genba.serve.http.request import Request
from genba.serve.http.responses import BINARY, JSON, MISTAKE, Refusal, encode_json
from genba.store.home import Store

if TYPE_CHECKING:
    from genba.serve.http.routes import App

_log = logging.getLogger("genba.serve")
_ROUTE: Final = "edge"
_NAME: Final = re.compile(r"([1-9][0-9]{0,8}\.)?(root|timestamp|snapshot|targets|director)\.json")
_RANGE: Final = re.compile(rb"bytes=([0-9]{1,15})-([0-9]{1,15})?")
_WAITING: Final = 64  # requests that have no answer yet
_RENEW_S: Final = 60.0  # between two looks at how long metadata is still good


class Answered:
    """A whole answer."""

    def __init__(
        self, body: bytes, *, status: int = 200, kind: bytes = JSON, fields: bytes = b""
    ) -> None:
        self.body = body
        self.status = status
        self.kind = kind
        self.fields = fields


class Desk:
    """Serves the devices of one home.

    Args:
        store: Of the home.
    """

    def __init__(self, store: Store) -> None:
        self._folder = store.path / "edge"
        self._store = store
        self._intake = Intake(store)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="genba-edge")
        self._renewed = -_RENEW_S
        self.waiting = 0

    def metadata(self, app: "App", request: Request, names: tuple[str, ...]) -> None:
        """GET /edge/metadata/{file}."""
        self._later(app, request, functools.partial(self._metadata, names[0]))

    def content(self, app: "App", request: Request, names: tuple[str, ...]) -> None:
        """GET /edge/objects/{digest}."""
        wanted = request.headers.get(b"range")
        self._later(app, request, functools.partial(self._content, names[0], wanted))

    def telemetry(self, app: "App", request: Request, _: tuple[str, ...]) -> None:
        """POST /edge/telemetry."""
        body, caller = bytes(request.body), request.caller
        self._later(app, request, lambda: Answered(encode_json(self._intake.take(body, caller))))

    def close(self) -> None:
        """Wait for what is being written."""
        self._threads.shutdown()

    def _later(self, app: "App", request: Request, work: Callable[[], Answered]) -> None:
        if self.waiting >= _WAITING:
            raise Refusal(503, "G706", "Too many devices ask at once.", b"Retry-After: 5\r\n")
        self.waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(functools.partial(self._done, app, request))

    def _done(self, app: "App", request: Request, future: "asyncio.Future[Any]") -> None:
        self.waiting -= 1
        error = future.exception()
        told = future.result() if error is None else _refused(error)
        app.metrics.answered(_ROUTE, told.status)
        request.respond(told.status, (told.body,), kind=told.kind, fields=told.fields)

    def _metadata(self, name: str) -> Answered:
        if not _NAME.fullmatch(name):
            raise _nothing()
        path = self._folder / "metadata" / name
        if name == "timestamp.json" and path.is_file():
            self._renew()
        try:
            return Answered(path.read_bytes())
        except OSError:
            raise _nothing() from None

    def _content(self, digest: str, wanted: bytes | None) -> Answered:
        """Answer with content, or a part of it (RFC 9110, section 14)."""
        if not is_digest(digest):
            raise _nothing()
        try:
            data = (self._folder / "objects" / digest).read_bytes()
        except OSError:
            raise _nothing() from None
        fields = b"Accept-Ranges: bytes\r\n"
        found = _RANGE.fullmatch(wanted) if wanted else None
        if found is None:
            return Answered(data, kind=BINARY, fields=fields)
        start, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        if start > end:
            fields += b"Content-Range: bytes */%d\r\n" % len(data)
            return Answered(b"", status=416, kind=BINARY, fields=fields)
        fields += b"Content-Range: bytes %d-%d/%d\r\n" % (start, end, len(data))
        return Answered(data[start : end + 1], status=206, kind=BINARY, fields=fields)

    def _renew(self) -> None:
        """Sign anew what devices would soon refuse; what is there is served either way."""
        now = time.monotonic()
        if now - self._renewed < _RENEW_S:
            return
        self._renewed = now
        try:
            resolve("update", "repository")(self._store.path).renew()
        except Problem as problem:
            _log.error("metadata for devices is not renewed: %s", problem)
        except OSError as error:
            _log.error("metadata for devices is not renewed: %s", error)


def metadata(app: "App", request: Request, names: tuple[str, ...]) -> None:
    """GET /edge/metadata/{file}."""
    app.edge.metadata(app, request, names)


def content(app: "App", request: Request, names: tuple[str, ...]) -> None:
    """GET /edge/objects/{digest}."""
    app.edge.content(app, request, names)


def telemetry(app: "App", request: Request, names: tuple[str, ...]) -> None:
    """POST /edge/telemetry."""
    app.edge.telemetry(app, request, names)


def _nothing() -> Refusal:
    return Refusal(404, "G708", "There is nothing of that name for devices.")


def _refused(error: BaseException) -> Answered:
    if isinstance(error, Refusal):
        return Answered(error.body(), status=error.status, fields=error.fields)
    if isinstance(error, Problem):
        status = 403 if error.code == "G689" else 400 if error.exit_code == 2 else 503
        return Answered(Refusal(status, error.code, error.what).body(), status=status)
    _log.error("an error in answering a device", exc_info=error)
    return Answered(MISTAKE.body(), status=500)
