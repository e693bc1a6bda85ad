"""Every address of the server and what answers it."""

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from genba import __version__
from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.serve import answers, metrics
from genba.serve.access import Access
from genba.serve.limits import Limits
from genba.serve.lines import LineService
from genba.serve.metrics import Metrics
from genba.serve.protocol import Connection, Request
from genba.serve.responses import MISTAKE, Refusal, encode_json

_log = logging.getLogger("genba.serve")

#: Takes line and rows; gives the report. Runs on a thread.
Receive = Callable[[str, list[dict[str, Any]]], Any]
Handler = Callable[["App", Request, tuple[str, ...]], None]

_feedback_rows = msgspec.json.Decoder(list[dict[str, Any]])


class App:
    """Answers requests.

    Args:
        limits: Of the server.
        access: Who may ask.
        metrics: Where answers are counted.
        lines: The lines in service; the server adds to it.
        receive: Takes in feedback.
    """

    def __init__(
        self,
        limits: Limits,
        access: Access,
        metrics: Metrics,
        lines: Mapping[str, LineService],
        receive: Receive,
    ) -> None:
        self.limits = limits
        self.connections: set[Connection] = set()
        self.draining = False
        self.held_bytes = 0
        self.lines = lines
        self.metrics = metrics
        self._access = access
        self._receive = receive
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="genba-feedback")
        self._waiting_feedback = 0

    # Connections call these.

    def handle(self, request: Request) -> None:
        """Answer a request, at once or later; never raises."""
        route = "none"
        try:
            self._access.check(request.headers)
            found, arguments = _route(request.target)
            route = found.name
            found.handler(request.method)(self, request, arguments)
        except Refusal as refusal:
            self.answer(request, route, refusal.status, refusal.body(), fields=refusal.fields)
        except Exception:  # noqa: BLE001  # our mistake must not end the other connections
            _log.exception("an error in the server")
            self.answer(request, route, 500, MISTAKE.body())

    def refused(self, refusal: Refusal) -> None:
        """Count a request that was refused before it was complete."""
        self.metrics.answered("none", refusal.status)

    def answer(
        self, request: Request, route: str, status: int, body: bytes, *, fields: bytes = b""
    ) -> None:
        """Count and send a JSON answer."""
        self.metrics.answered(route, status)
        request.respond(status, (body,), fields=fields)

    def close(self) -> None:
        """Wait for feedback that is being written."""
        self._threads.shutdown()

    @property
    def busy(self) -> bool:
        """Whether an answer is still owed."""
        return bool(self._waiting_feedback) or any(line.busy for line in self.lines.values())

    @property
    def ready(self) -> bool:
        """Whether there is a line and every line can answer."""
        return bool(self.lines) and all(line.ready for line in self.lines.values())

    # Handlers.

    def server_metadata(self, request: Request, _: tuple[str, ...]) -> None:
        """GET /v2."""
        body = encode_json(answers.server_metadata(__version__))
        self.answer(request, "metadata", 200, body)

    def live(self, request: Request, _: tuple[str, ...]) -> None:
        """GET /v2/health/live."""
        self.answer(request, "health", 200, encode_json({"live": True}))

    def server_ready(self, request: Request, _: tuple[str, ...]) -> None:
        """GET /v2/health/ready."""
        ready = self.ready and not self.draining
        self.answer(request, "health", 200 if ready else 503, encode_json({"ready": ready}))

    def model_metadata(self, request: Request, names: tuple[str, ...]) -> None:
        """GET /v2/models/{line}[/versions/{package}]."""
        body = self._line(names[0]).metadata(names[1] if len(names) > 1 else None)
        self.answer(request, "metadata", 200, encode_json(body))

    def model_ready(self, request: Request, names: tuple[str, ...]) -> None:
        """GET /v2/models/{line}[/versions/{package}]/ready."""
        line = self._line(names[0])
        if len(names) > 1:
            line.metadata(names[1])
        body = encode_json({"name": line.name, "ready": line.ready})
        self.answer(request, "health", 200 if line.ready else 503, body)

    def infer(self, request: Request, names: tuple[str, ...]) -> None:
        """POST /v2/models/{line}[/versions/{package}]/infer."""
        self._line(names[0]).infer(request, names[1] if len(names) > 1 else None)

    def text_metrics(self, request: Request, _: tuple[str, ...]) -> None:
        """GET /metrics."""
        self.metrics.answered("metrics", 200)
        request.respond(200, (self.metrics.text(),), kind=metrics.KIND)

    def all_lines(self, request: Request, _: tuple[str, ...]) -> None:
        """GET /genba/v1/lines."""
        body = [{"line": line.name, "ready": line.ready} for line in self.lines.values()]
        self.answer(request, "lines", 200, encode_json(body))

    def one_line(self, request: Request, names: tuple[str, ...]) -> None:
        """GET /genba/v1/lines/{line}."""
        self.answer(request, "lines", 200, encode_json(self._line(names[0]).describe()))

    def feedback(self, request: Request, names: tuple[str, ...]) -> None:
        """POST /genba/v1/lines/{line}/feedback: a JSON list of rows."""
        line = self._line(names[0])
        if self._waiting_feedback >= self.limits.pipelined:
            raise Refusal(503, "G706", "Too much feedback is waiting.", b"Retry-After: 1\r\n")
        self._waiting_feedback += 1
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, self._take_in, line.name, request.body
        )
        future.add_done_callback(functools.partial(self._received, request))

    # Helpers.

    def _take_in(self, line: str, body: bytes) -> Any:
        """Read rows of feedback and hand them on; on a thread, since masks take long to read."""
        try:
            rows = _feedback_rows.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Refusal(400, "G704", f"Feedback is a JSON list of rows: {error}.") from error
        limit = self.limits.feedback_rows
        if not 1 <= len(rows) <= limit:
            raise Refusal(400, "G704", f"{len(rows)} rows; from 1 to {limit} are taken at a time.")
        for row in rows:
            if row.get("mask") is not None:
                _check_mask(row["mask"], self.limits.mask_bytes)
        return self._receive(line, rows)

    def _received(self, request: Request, future: "asyncio.Future[Any]") -> None:
        self._waiting_feedback -= 1
        error = future.exception()
        if error is None:
            self.answer(request, "feedback", 200, encode_json(future.result()))
        elif isinstance(error, Refusal):
            self.answer(request, "feedback", error.status, error.body())
        elif isinstance(error, Problem):
            status = 400 if error.exit_code == 2 else 503  # usage and data, or the store
            self.answer(request, "feedback", status, Refusal(status, error.code, error.what).body())
        else:
            _log.error("an error in taking in feedback", exc_info=error)
            self.answer(request, "feedback", 500, MISTAKE.body())

    def _line(self, name: str) -> LineService:
        line = self.lines.get(name)
        if line is None:
            raise unknown_line(name, sorted(self.lines))
        return line


class Route:
    """An address with the methods it has."""

    def __init__(self, name: str, pattern: str, **handlers: Handler) -> None:
        self.name = name
        self.pattern = tuple(pattern.split("/"))
        self._handlers = {method.encode(): handler for method, handler in handlers.items()}
        if "GET" in handlers:
            self._handlers[b"HEAD"] = handlers["GET"]

    def match(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return what stands in for the stars of the pattern, None when it does not fit."""
        if len(parts) != len(self.pattern):
            return None
        pairs = list(zip(self.pattern, parts, strict=True))
        if any(want not in ("*", got) for want, got in pairs):
            return None
        return tuple(got for want, got in pairs if want == "*")

    def handler(self, method: bytes) -> Handler:
        """Return what answers a method.

        Raises:
            Refusal: 405 with the methods that there are.
        """
        if method not in self._handlers:
            allowed = b", ".join(sorted(self._handlers))
            what = f"This address takes {allowed.decode()}."
            raise Refusal(405, "G708", what, b"Allow: %b\r\n" % allowed)
        return self._handlers[method]


ROUTES: Final = (
    Route("infer", "v2/models/*/infer", POST=App.infer),
    Route("infer", "v2/models/*/versions/*/infer", POST=App.infer),
    Route("metadata", "v2", GET=App.server_metadata),
    Route("health", "v2/health/live", GET=App.live),
    Route("health", "v2/health/ready", GET=App.server_ready),
    Route("metadata", "v2/models/*", GET=App.model_metadata),
    Route("metadata", "v2/models/*/versions/*", GET=App.model_metadata),
    Route("health", "v2/models/*/ready", GET=App.model_ready),
    Route("health", "v2/models/*/versions/*/ready", GET=App.model_ready),
    Route("metrics", "metrics", GET=App.text_metrics),
    Route("lines", "genba/v1/lines", GET=App.all_lines),
    Route("lines", "genba/v1/lines/*", GET=App.one_line),
    Route("feedback", "genba/v1/lines/*/feedback", POST=App.feedback),
)


def unknown_line(name: str, known: list[str]) -> Refusal:
    """Refuse a name that is no line, with the ones that are.

    Example:
        >>> unknown_line("pumps", ["pump"]).what
        "There is no line 'pumps'; did you mean pump? Known: pump."
    """
    near = nearest(name, known)
    hint = f"; did you mean {near}?" if near else "."
    return Refusal(
        404, "G703", f"There is no line {name[:80]!r}{hint} Known: {', '.join(known) or 'none'}."
    )


def _check_mask(text: Any, most: int) -> None:
    """Refuse a mask that is no text or too long; whoever takes feedback in says the rest."""
    if not isinstance(text, str):
        raise Refusal(400, "G731", "A mask is an image as base64 text.")
    if len(text) > most:
        raise Refusal(400, "G731", f"A mask has {len(text)} characters; {most} are taken.")


def _route(target: bytes) -> tuple[Route, tuple[str, ...]]:
    return _route_of(target.partition(b"?")[0])


@functools.lru_cache(maxsize=256)
def _route_of(address: bytes) -> tuple[Route, tuple[str, ...]]:
    path = address.decode("latin-1")
    parts = tuple(path.strip("/").split("/"))
    for route in ROUTES:
        arguments = route.match(parts)
        if arguments is not None:
            return route, arguments
    raise Refusal(404, "G708", f"There is nothing at {path[:80]!r}.")
