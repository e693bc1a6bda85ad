"""Every call of the gRPC port: admitted by its key, read within bounds, answered exactly once."""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import grpc.aio

from genba.serve.access.callers import Access, Caller, WrongKey
from genba.serve.access.quota import SHED
from genba.serve.grpc.calls import (
    GrpcCall,
    details,
    patience,
    refused_in_stream,
    status,
    trailers,
)
from genba.serve.grpc.messages import SERVICE
from genba.serve.grpc.methods import METHODS, Host, Method, find_line, unknown_method
from genba.serve.grpc.reading import Question, parse, read_question
from genba.serve.http.plans import trace_of
from genba.serve.http.responses import MISTAKE, Refusal, overloaded
from genba.serve.lanes.patience import usual_s

_log = logging.getLogger("genba.serve")
_PREFIX: Final = f"/{SERVICE.full_name}/"
_INFER: Final = "infer"  # scope and route
_STREAMS: Final = 0.5  # of all calls that there may be; the others are for single requests
_CACHED_CALLERS: Final = 256
#: Metadata that says who asks; nothing in a browser can send it to this port, but a proxy may.
_WHO: Final = ("authorization", "origin", "sec-fetch-site")

Work = Callable[[Any, Caller], Awaitable[bytes]]


class Service:
    """Answers calls. Belongs to the event loop.

    Every method reads its message itself, so that a call is refused before that is done.

    Args:
        host: The server.
        access: Who may ask.
    """

    def __init__(self, host: Host, access: Access) -> None:
        self._host = host
        self._access = access
        self._limits = host.limits
        self._loop = asyncio.get_running_loop()
        self._streams = 0
        self._callers: dict[tuple[Any, ...], Caller] = {}
        self._version = access.version
        once = grpc.stream_unary_rpc_method_handler
        self._methods = {
            name: once(functools.partial(self._at_once, method)) for name, method in METHODS.items()
        }
        self._methods["ModelInfer"] = once(self._infer)
        self._methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)

    def service(self, handler_call_details: Any) -> Any:
        """Return what answers a method."""
        path: str = handler_call_details.method
        name = path.removeprefix(_PREFIX)
        found = self._methods.get(name) if path.startswith(_PREFIX) else None
        if found is None:
            refuse = functools.partial(self._no_method, name)
            found = grpc.stream_unary_rpc_method_handler(refuse)
        return found

    # What answers the methods.

    async def _no_method(self, name: str, _: Any, context: Any) -> bytes:
        async def refuse(_: Any, caller: Caller) -> bytes:
            if not caller.known:
                caller.allow(None)  # a stranger does not learn what there is
            raise unknown_method(name)

        return await self._answer(context, "none", None, refuse)

    async def _at_once(self, method: Method, _: Any, context: Any) -> bytes:
        async def work(context: Any, caller: Caller) -> bytes:
            body = await self._read(context)
            if len(body) > self._limits.parse_bytes:
                most = self._limits.parse_bytes
                raise Refusal(413, "G747", f"The message of this method has at most {most} bytes.")
            sent = parse(method.request, body)
            caller.allow(method.scope, getattr(sent, method.line) if method.line else "")
            answer = method.answer(self._host, sent)
            if inspect.isawaitable(answer):
                answer = await answer
            self._host.metrics.answered(method.route, 200)
            written: bytes = answer.SerializeToString()
            return written

        return await self._answer(context, method.route, method.scope, work)

    async def _infer(self, _: Any, context: Any) -> bytes:
        async def work(context: Any, caller: Caller) -> bytes:
            body = await self._read(context)
            answer = await self._ask(body, context, caller)
            if isinstance(answer, Refusal):  # the line has counted it
                raise await self._abort(context, answer)
            return answer

        return await self._answer(context, _INFER, _INFER, work)

    async def _stream(self, _: Any, context: Any) -> None:
        """Answer the requests of a stream in their order; several may be on their way at once."""
        try:
            caller = self._caller(context, _INFER)
            if self._streams >= self._limits.connections * _STREAMS:
                raise overloaded("Too many streams are open.")
        except Refusal as refusal:
            self._host.metrics.refused(_INFER, refusal)
            raise await self._abort(context, refusal) from None
        asked: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(self._limits.pipelined)
        reader = self._loop.create_task(self._read_stream(context, caller, asked))
        self._streams += 1
        task = None
        try:
            while (task := await asked.get()) is not None:
                await context.write(await task)
        finally:
            self._streams -= 1
            reader.cancel()
            while task is not None:
                task.cancel()
                task = None if asked.empty() else asked.get_nowait()

    async def _read_stream(
        self, context: Any, caller: Caller, asked: "asyncio.Queue[asyncio.Task[bytes] | None]"
    ) -> None:
        try:
            while (body := await context.read()) is not grpc.aio.EOF:
                await asked.put(self._loop.create_task(self._ask_in_stream(body, context, caller)))
        except grpc.aio.BaseError:  # the call is over
            pass
        finally:
            await asked.put(None)

    async def _ask_in_stream(self, body: bytes, context: Any, caller: Caller) -> bytes:
        try:
            refusal = self._admit(caller)
            if refusal is not None:
                raise refusal
            try:
                answer = await self._ask(body, context, caller, streamed=True)
            finally:
                caller.done()
        except Refusal as error:
            self._host.metrics.refused(_INFER, error)
            answer = error
        except Exception:  # noqa: BLE001  # our mistake must not end the stream
            _log.exception("an error in the server")
            self._host.metrics.refused(_INFER, MISTAKE)
            answer = MISTAKE
        return refused_in_stream(answer, body) if isinstance(answer, Refusal) else answer

    # What they share.

    async def _answer(self, context: Any, route: str, scope: str | None, work: Work) -> bytes:
        """Do the work of a call for whoever may ask for it; end it with a refusal otherwise."""
        try:
            caller = self._caller(context, scope)
            refusal = self._admit(caller)
            if refusal is not None:
                raise refusal
            try:
                return await work(context, caller)
            finally:
                caller.done()
        except Refusal as error:
            refusal = error
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001  # our mistake must not end the other calls
            _log.exception("an error in the server")
            refusal = MISTAKE
        self._host.metrics.refused(route, refusal)
        raise await self._abort(context, refusal)

    def _admit(self, caller: Caller) -> Refusal | None:
        if self._host.draining:
            return overloaded("The server is stopping.")
        refusal = caller.admit()
        if refusal is not None:
            self._host.metrics.shed(SHED.get(refusal.code, "key"))
        return refusal

    def _caller(self, context: Any, scope: str | None) -> Caller:
        """Return who asks.

        Args:
            context: Of the call.
            scope: What the key must allow, whatever the line; None where that is not known yet.

        Raises:
            Refusal: 401 for a wrong key, 403 for one that does not allow the method.
        """
        sent = dict(context.invocation_metadata())
        who = tuple(sent.get(name) for name in _WHO)
        if self._version != self._access.version:
            self._callers.clear()
            self._version = self._access.version
        caller = self._callers.get(who)
        if caller is None:
            caller = self._check(who, context)
        if scope is not None and scope not in caller.scopes:
            caller.allow(scope)
        return caller

    def _check(self, who: tuple[Any, ...], context: Any) -> Caller:
        """Ask who it is, as for a request over HTTP to this machine."""
        pairs = zip(_WHO, who, strict=True)
        headers = {n.encode(): str(v).encode() for n, v in pairs if v is not None}
        try:
            caller = self._access.check({b"host": b"localhost", **headers})
        except WrongKey as refusal:
            peer = context.peer().rpartition(":")[0]
            raise self._access.count_wrong(peer) or refusal from None
        if len(self._callers) >= _CACHED_CALLERS:
            self._callers.clear()
        self._callers[who] = caller
        return caller

    async def _read(self, context: Any) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_s):
                body = await context.read()
        except TimeoutError as error:
            raise Refusal(408, "G708", "The request took too long to arrive.") from error
        if body is grpc.aio.EOF:
            raise Refusal(400, "G747", "The call has no message, or a larger one than is taken.")
        taken: bytes = body
        return taken

    async def _ask(
        self, body: bytes, context: Any, caller: Caller, *, streamed: bool = False
    ) -> bytes | Refusal:
        """Ask a line, and wait for its answer.

        Raises:
            Refusal: When the request never got as far as a package.
        """
        size = len(body)
        if self._host.held_bytes + size > self._limits.held_bytes:
            raise overloaded("The server holds as many requests as it has memory for.")
        self._host.held_bytes += size
        try:
            if size <= self._limits.parse_bytes:
                question = read_question(body)
            else:
                question = await self._loop.run_in_executor(None, read_question, body)
            call = self._call(question, context, caller, size=size, streamed=streamed)
            caller.allow(_INFER, question.head.line)
            line = find_line(self._host, question.head.line)
            line.ask(
                call,
                question.head.version,
                lambda schema: question.inputs(line.bounds(schema), schema),
            )
            return await call.answered
        finally:
            self._host.held_bytes -= size

    def _call(
        self, question: Question, context: Any, caller: Caller, *, size: int, streamed: bool
    ) -> GrpcCall:
        wait_s = usual_s(self._host.lines.get(question.head.line), self._limits)
        if not streamed:  # the deadline of a stream is that of all its requests together
            wait_s = patience(context, wait_s, self._limits.longest_deadline_s)
        call = GrpcCall(question.head, self._loop, size, wait_s=wait_s, streamed=streamed)
        sent: Mapping[str, Any] = dict(context.invocation_metadata())
        call.trace = trace_of(str(sent.get("traceparent", "")).encode())
        call.caller = caller.id
        if sent.get("x-genba-priority") == "batch":
            call.urgent = False
        return call

    async def _abort(self, context: Any, refusal: Refusal) -> BaseException:
        """End a call with a refusal; return what must be raised then."""
        ended: BaseException = asyncio.CancelledError()  # it was over before we knew
        try:
            await context.abort(status(refusal), details(refusal), trailers(refusal))
        except grpc.aio.AbortError as aborted:
            ended = aborted
        except grpc.aio.BaseError:
            pass
        return ended
