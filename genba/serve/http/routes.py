"""Every address of the server and what answers it."""

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from genba import __version__
from genba.core.codec import nearest
from genba.serve.access.callers import ANYONE, DESCRIBE, Access, Caller, WrongKey
from genba.serve.access.quota import SHED
from genba.serve.edge import desk as edge
from genba.serve.http import extensions, openapi, page
from genba.serve.http.connection import Connection
from genba.serve.http.intake import Intake, Receive
from genba.serve.http.owner import INBOX_BYTES
from genba.serve.http.plans import Plan, Plans
from genba.serve.http.repository import AskForMemory
from genba.serve.http.request import Release, Request
from genba.serve.http.responses import MISTAKE, Refusal, encode_json
from genba.serve.http.unpacking import unpacking
from genba.serve.lanes.lines import LineService
from genba.serve.lanes.patience import usual_s
from genba.serve.limits import Limits
from genba.serve.oip import answers
from genba.serve.openai import handlers as openai
from genba.serve.openai.fields import refuse_large
from genba.serve.watch.metrics import Metrics
from genba.serve.watch.scrape import Scraper, text_metrics

_log = logging.getLogger("genba.serve")

Handler = Callable[["App", Request, tuple[str, ...]], None]


class Bound:
    """What a request head means here: who asks, and what answers. Kept with the plan of the head.

    Attributes:
        version: Of the keys by which it was decided.
    """

    __slots__ = ("arguments", "caller", "handler", "route", "version")

    def __init__(
        self,
        version: int,
        caller: Caller,
        route: str,
        handler: Handler,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.version = version
        self.caller = caller
        self.route = route
        self.handler = handler
        self.arguments = arguments


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
        self.plans = Plans()
        self.inbox = bytearray(INBOX_BYTES)
        self.draining = False
        self.held_bytes = 0
        self.lines = lines
        self.metrics = metrics
        self.scraper = Scraper(metrics)
        self.routes = ROUTES
        self.memory: AskForMemory  # whoever loads packages; the server says
        self.edge: edge.Desk  # for devices; the server says
        self._access = access
        self._intake = Intake(limits, receive)

    # Connections call these.

    def admit(self, plan: Plan, peer: str) -> Release | None:
        """Decide about a request by its head alone.

        Raises:
            Refusal: For whoever may not ask, for what is not there, and under overload.
        """
        bound: Bound | None = plan.bound
        if bound is None or bound.version != self._access.version:
            bound = plan.bound = self._bind(plan, peer)
        if plan.length > self.limits.early_bytes and bound.route == "infer":
            self._look_ahead(plan, bound.arguments)
        refusal = bound.caller.admit()
        if refusal is not None:
            self.metrics.shed(SHED.get(refusal.code, "key"))
            raise refusal
        return bound.caller.done

    def handle(self, request: Request) -> None:
        """Answer a request, at once or later; never raises."""
        bound: Bound = request.plan.bound
        request.caller = bound.caller.id
        request.fields = bound.caller.fields
        if request.trace:
            request.fields += b"X-Request-Id: %b\r\n" % request.trace.encode()
        try:
            bound.handler(self, request, bound.arguments)
        except Refusal as refusal:
            self.metrics.refused(bound.route, refusal, trace=request.trace)
            request.refuse(refusal)
        except Exception:  # noqa: BLE001  # our mistake must not end the other connections
            _log.exception("an error in the server")
            self.metrics.answered(bound.route, 500)
            request.refuse(MISTAKE)

    def refused(self, refusal: Refusal, plan: Plan) -> None:
        """Count a request that was refused before it was complete."""
        bound: Bound | None = plan.bound
        self.metrics.refused(bound.route if bound else "none", refusal, trace=plan.trace)

    def _look_ahead(self, plan: Plan, names: tuple[str, ...]) -> None:
        """Refuse a large request that could not be answered in time before it is received."""
        if not names:  # a language model is named in the body
            refuse_large(plan.length, self.limits)
            return
        line = self.lines.get(names[0])
        if line is None:
            return  # its handler says what is wrong
        wait_s = plan.deadline_s or usual_s(line, self.limits)
        version = names[1] if len(names) > 1 else None
        until = time.perf_counter() + wait_s
        refusal = line.admit(version, plan.length, until, urgent=plan.urgent)
        if refusal is not None:
            raise Refusal(refusal.status, refusal.code, refusal.what, refusal.fields)

    def _bind(self, plan: Plan, peer: str) -> Bound:
        """Find out who asks and what answers.

        Default deny: without a scope that allows the address nobody learns what is there.
        """
        if plan.deadline_s is not None and math.isnan(plan.deadline_s):
            raise Refusal(400, "G708", "X-Genba-Deadline-Ms must be a number above 0.")
        version = self._access.version
        try:
            caller = self._access.check(plan.headers)
        except WrongKey as refusal:
            raise self._access.count_wrong(peer) or refusal from None
        fields = self._access.preflight(plan.headers) if plan.method == b"OPTIONS" else None
        if fields is not None:
            return Bound(version, caller, "preflight", functools.partial(_preflight, fields))
        try:
            route, arguments = _route(plan.target)
        except Refusal:
            if not caller.known:
                caller.allow(None)
            raise
        line = arguments[0] if arguments and route.about_line else ""
        caller.allow(route.scope, None if route.names_line else line)
        handler = unpacking(route.handler(plan.method), plan.headers.get(b"content-encoding", b""))
        return Bound(version, caller, route.name, handler, arguments)

    def answer(
        self, request: Request, route: str, status: int, body: bytes, *, fields: bytes = b""
    ) -> None:
        """Count and send a JSON answer."""
        self.metrics.answered(route, status)
        request.respond(status, (body,), fields=fields)

    def close(self) -> None:
        """Wait for feedback that is being written."""
        self._intake.close()

    @property
    def busy(self) -> bool:
        """Whether an answer is still owed."""
        return bool(self._intake.waiting) or any(line.busy for line in self.lines.values())

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
        body = self.line(names[0]).metadata(names[1] if len(names) > 1 else None)
        self.answer(request, "metadata", 200, encode_json(body))

    def model_ready(self, request: Request, names: tuple[str, ...]) -> None:
        """GET /v2/models/{line}[/versions/{package}]/ready."""
        line = self.line(names[0])
        if len(names) > 1:
            line.metadata(names[1])
        body = encode_json({"name": line.name, "ready": line.ready})
        self.answer(request, "health", 200 if line.ready else 503, body)

    def infer(self, request: Request, names: tuple[str, ...]) -> None:
        """POST /v2/models/{line}[/versions/{package}]/infer."""
        self.line(names[0]).infer(request, names[1] if len(names) > 1 else None)

    def all_lines(self, request: Request, _: tuple[str, ...]) -> None:
        """GET /genba/v1/lines."""
        body = [{"line": line.name, "ready": line.ready} for line in self.lines.values()]
        self.answer(request, "lines", 200, encode_json(body))

    def one_line(self, request: Request, names: tuple[str, ...]) -> None:
        """GET /genba/v1/lines/{line}."""
        self.answer(request, "lines", 200, encode_json(self.line(names[0]).describe()))

    def feedback(self, request: Request, names: tuple[str, ...]) -> None:
        """POST /genba/v1/lines/{line}/feedback: a JSON list of rows."""
        line = self.line(names[0])
        self._intake.take(self, request, line.name)

    # Helpers.

    def line(self, name: str) -> LineService:
        """Return a line.

        Raises:
            Refusal: 404 when there is none of that name.
        """
        line = self.lines.get(name)
        if line is None:
            raise unknown_line(name, sorted(self.lines))
        return line


class Route:
    """An address with the methods it has.

    Args:
        name: For counts; few names, so that counting stays small.
        pattern: Path; a star stands for one part of it.
        scope: What a key must allow; an address without a scope is nobody's.
        handlers: By method.
    """

    def __init__(
        self, name: str, pattern: str, scope: str | None = None, **handlers: Handler
    ) -> None:
        self.name = name
        self.scope = scope
        self.about_line = pattern.startswith(_ABOUT_LINES)
        self.names_line = pattern.startswith(_NAMES_LINE)  # in its body; its handler asks again
        self.pattern = tuple(pattern.split("/"))
        self.methods = tuple(handlers)
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


_NAMES_LINE: Final = ("v1/", "tokenize", "detokenize", "edge/")
_ABOUT_LINES: Final = ("v2/models/*", "v2/repository/models/*", "genba/v1/lines/*")

ROUTES: Final = (
    Route("infer", "v2/models/*/infer", "infer", POST=App.infer),
    Route("infer", "v2/models/*/versions/*/infer", "infer", POST=App.infer),
    Route("metadata", "v2", DESCRIBE, GET=App.server_metadata),
    Route("health", "v2/health/live", ANYONE, GET=App.live),
    Route("health", "v2/health/ready", DESCRIBE, GET=App.server_ready),
    Route("statistics", "v2/models/stats", "read", GET=extensions.model_statistics),
    Route("metadata", "v2/models/*", DESCRIBE, GET=App.model_metadata),
    Route("metadata", "v2/models/*/versions/*", DESCRIBE, GET=App.model_metadata),
    Route("health", "v2/models/*/ready", DESCRIBE, GET=App.model_ready),
    Route("health", "v2/models/*/versions/*/ready", DESCRIBE, GET=App.model_ready),
    Route("metadata", "v2/models/*/config", DESCRIBE, GET=extensions.model_config),
    Route("metadata", "v2/models/*/versions/*/config", DESCRIBE, GET=extensions.model_config),
    Route("statistics", "v2/models/*/stats", "read", GET=extensions.model_statistics),
    Route("statistics", "v2/models/*/versions/*/stats", "read", GET=extensions.model_statistics),
    Route("repository", "v2/repository/index", "read", POST=extensions.repository_index),
    Route("repository", "v2/repository/models/*/load", "deploy", POST=extensions.load),
    Route("repository", "v2/repository/models/*/unload", "deploy", POST=extensions.unload),
    Route("metrics", "metrics", "read", GET=text_metrics),
    Route("lines", "genba/v1/lines", "read", GET=App.all_lines),
    Route("lines", "genba/v1/lines/*", "read", GET=App.one_line),
    Route("feedback", "genba/v1/lines/*/feedback", "feedback", POST=App.feedback),
    Route("metadata", "openapi.json", DESCRIBE, GET=openapi.openapi),
    Route("infer", "v1/chat/completions", "infer", POST=openai.chat_completions),
    Route("infer", "v1/completions", "infer", POST=openai.completions),
    Route("infer", "v1/responses", "infer", POST=openai.responses),
    Route("embeddings", "v1/embeddings", "infer", POST=openai.embeddings),
    Route("metadata", "v1/models", DESCRIBE, GET=openai.models),
    Route("metadata", "v1/models/*", DESCRIBE, GET=openai.model),
    Route("tokenize", "tokenize", "infer", POST=openai.tokenize),
    Route("tokenize", "detokenize", "infer", POST=openai.detokenize),
    Route("metadata", "tokenizer_info", "infer", GET=openai.tokenizer_info),
    Route("edge", "edge/metadata/*", "device", GET=edge.metadata),
    Route("edge", "edge/objects/*", "device", GET=edge.content),
    Route("edge", "edge/telemetry", "device", POST=edge.telemetry),
    Route("page", "", ANYONE, GET=page.page),
    Route("page", "talk", ANYONE, GET=page.talk),
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


def _preflight(fields: bytes, app: App, request: Request, _: tuple[str, ...]) -> None:
    """Tell a browser what a page of an allowed origin may send."""
    app.metrics.answered("preflight", 204)
    request.respond(204, (), fields=fields)


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
