"""One HTTP/1.1 connection: bytes in, requests out, answers back in the order of the requests.

A request that is whole, and whose head has been seen before, is found by one lookup; everything
else goes through llhttp piece by piece (`genba.serve.http.messages`). Bodies that arrive in several
pieces are received into their own memory, without a copy. Here are the limits: sizes, times,
pipelining, and what happens when a client breaks them. A refusal is written, then the connection
ends; it is read for a moment longer so that the client gets to see the refusal instead of a reset.
A request that is turned away for now costs only its own body: the connection goes on.
"""

import asyncio
from collections import deque
from typing import Any, Final

from genba.serve.http.messages import Messages, too_large
from genba.serve.http.owner import Owner
from genba.serve.http.plans import NO_PLAN, Plan
from genba.serve.http.request import Release, Request
from genba.serve.http.responses import CONTINUE, Refusal, overloaded, render

_HEAD_END: Final = b"\r\n\r\n"
_HEAD_END_SIZE: Final = len(_HEAD_END)


class Connection(asyncio.BufferedProtocol):
    """A connection of one client."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self.limits = owner.limits
        self._now = loop.time
        self._transport: Any = None
        self._inbox = owner.inbox
        self._view = memoryview(owner.inbox)
        self._target: Any = owner.inbox  # where the next bytes go
        self._messages: Messages | None = None  # made when it is needed
        self._waiting: deque[Request] = deque()
        self._closing = False  # nothing that arrives from now on is looked at
        self._lingering = False  # refused: what arrives is thrown away for a moment
        self._paused = False  # not reading
        self._blocked = False  # the client does not read its answers
        self._receiving = False  # between the first byte of a request and its last
        self._plan: Plan = NO_PLAN  # of the request whose body is arriving
        self._release: Release | None = None  # of that request
        self._body: bytearray | None = None  # of that request, received in place
        self._filled = 0
        self._skip = 0  # bytes still to come of a body that nobody reads
        self._held = 0  # bytes of bodies that the owner counts as held
        self._ended = False  # the client sends nothing more; it may be gone, or wait for its answer
        self.lost = False
        self.peer = ""  # address of the client
        self.deadline = 0.0  # by the clock of the event loop; 0 means none

    @property
    def owed(self) -> int:
        """Requests that await their answers."""
        return len(self._waiting)

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection if there is room for one more."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        if len(self._owner.connections) >= self.limits.connections:
            refusal = overloaded("Too many connections are open.")
            self._owner.refused(refusal, NO_PLAN)
            self._closing = True
            self._transport.write(
                render(refusal.status, (refusal.body(),), fields=refusal.fields, close=True)
            )
            self._transport.close()
            return
        self._owner.connections.add(self)
        self.deadline = self._now() + self.limits.head_s

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's name
        """Forget the connection; answers that are still to come go nowhere."""
        self._owner.connections.discard(self)
        self._closing = self.lost = True
        self._transport = None
        self._drop_body()
        if self._messages is not None:
            self._messages.close()
        for request in self._waiting:
            if request.stream is not None:
                request.stream.lost()
        self._waiting.clear()
        self._give_back(self._held)

    def get_buffer(self, sizehint: int) -> Any:  # noqa: ARG002  # asyncio's name
        """Say where the next bytes go."""
        return self._target

    def buffer_updated(self, nbytes: int) -> None:
        """Look at what arrived; every complete request in it is handed to the owner."""
        if self._body is not None:
            self._fill(nbytes)
        elif not self._closing:
            self._take(nbytes)
            if len(self._waiting) > self.limits.pipelined:
                self._pause(until=0.0)

    def eof_received(self) -> bool:
        """Answer what was asked for in full, then close."""
        self._closing = self._ended = True
        return bool(self._waiting)

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self._blocked = True
        self._pause(until=self._now() + self.limits.write_s)
        self._tell_streams(blocked=True)

    def resume_writing(self) -> None:
        """Go on once the client has read."""
        self._blocked = False
        self._resume()
        self._tell_streams(blocked=False)

    # From bytes to requests.

    def _take(self, size: int) -> None:
        """Find the requests in the inbox."""
        start = 0
        while start < size and not self._closing:
            if self._skip:
                start += self._skipped(size - start)
                continue
            plan = None
            if self._messages is None or not self._messages.inside:
                end = self._inbox.find(_HEAD_END, start, size) + _HEAD_END_SIZE
                if _HEAD_END_SIZE <= end - start <= self.limits.head_bytes:
                    plan = self._owner.plans.get(bytes(self._view[start:end]))
            if plan is None:
                self._feed(bytes(self._view[start:size]))
                return
            start = end + self._begin(plan, end, size)

    def _feed(self, data: bytes) -> None:
        """Let the parser read, piece by piece."""
        if self._closing:
            return
        if self._messages is None:
            self._messages = Messages(self)
        self._messages.feed(data)

    def _begin(self, plan: Plan, start: int, size: int) -> int:
        """Begin with a request whose head is complete; return how many bytes its body took."""
        there = min(size - start, plan.length)
        try:
            self._admit(plan)
        except Refusal as refusal:
            self._turn_away(plan, refusal, plan.length - there)
            return there
        if there == plan.length:
            self._complete(plan, bytes(self._view[start : start + there]) if there else b"")
            return there
        if not self.has_room(plan.length):
            return there
        self._plan, self._filled = plan, there
        self._body = bytearray(plan.length)
        self._body[:there] = self._view[start : start + there]
        self._target = memoryview(self._body)[there:]
        self._receiving = True
        self.deadline = self._now() + self.limits.body_s
        return there

    def _fill(self, nbytes: int) -> None:
        """Take what arrived of a body that is received in place."""
        self._filled += nbytes
        body = self._body
        if body is None or self._filled < len(body):
            self._target = self._target[nbytes:]
            return
        self._body, self._target = None, self._inbox
        self._receiving = False
        if not self._closing:
            self._complete(self._plan, body, held=True)

    def _admit(self, plan: Plan) -> None:
        if plan.length > self.limits.body_bytes:
            raise too_large(self.limits)
        self._release = self._owner.admit(plan, self.peer)

    def _turn_away(self, plan: Plan, refusal: Refusal, rest: int) -> None:
        """Refuse a request whose body has not been looked at; what is to come of it is skipped."""
        ends = rest > self.limits.skip_bytes or (rest and not plan.keep_alive)
        if ends or plan.length > self.limits.body_bytes:
            self.refuse(refusal)
            return
        self._skip = rest
        if rest:
            self._receiving = True
            self.deadline = self._now() + self.limits.body_s
        self._owner.refused(refusal, plan)
        request = self._enqueue(plan, b"")
        request.refuse(refusal)

    def _skipped(self, there: int) -> int:
        """Throw away what is there of a body that nobody reads."""
        thrown = min(self._skip, there)
        self._skip -= thrown
        if not self._skip:
            self._receiving = False
            if not self._waiting:
                self.deadline = self._now() + self.limits.idle_s
        return thrown

    def _complete(self, plan: Plan, body: bytes | bytearray, *, held: bool = False) -> None:
        """Hand a complete request to the owner."""
        if not held and body and not self.has_room(len(body)):
            return
        self.deadline = 0.0
        request = self._enqueue(plan, body)
        request.release, self._release = self._release, None
        self._owner.handle(request)

    def _enqueue(self, plan: Plan, body: bytes | bytearray) -> Request:
        deadline_s = plan.deadline_s or self.limits.deadline_s
        request = Request(self, plan, body, min(deadline_s, self.limits.longest_deadline_s))
        if self._owner.draining:
            request.close = True
        if request.close:
            self._closing = True
        self._waiting.append(request)
        return request

    # The parser of everything that is not plain calls these.

    def head_begins(self) -> None:
        """A request begins."""
        self._receiving = True
        self.deadline = self._now() + self.limits.head_s

    def head_ends(self, plan: Plan, expects: bytes | None) -> None:
        """Refuse what is not wanted before its body is sent."""
        self.deadline = self._now() + self.limits.body_s
        try:
            self._admit(plan)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        if plan.length and self._owner.held_bytes + plan.length > self.limits.held_bytes:
            self.refuse(_full())
        elif expects is not None:
            self._expect(expects)

    def has_room(self, size: int) -> bool:
        """Hold so many bytes of a body; refuse the request when that is too much."""
        if self._owner.held_bytes + size > self.limits.held_bytes:
            self.refuse(_full())
            return False
        self._held += size
        self._owner.held_bytes += size
        return True

    def ends(self, plan: Plan, body: bytes) -> None:
        """A request is complete."""
        self._receiving = False
        self._complete(plan, body, held=True)
        if self._closing and self._messages is not None:
            self._messages.stop()

    def refuse(self, refusal: Refusal) -> None:
        """Refuse the request that is arriving, and end the connection."""
        if self._closing:
            return
        self._closing = self._lingering = True
        self._drop_body()
        self.deadline = 0.0  # answers to earlier requests come first; they have their own
        self._owner.refused(refusal, NO_PLAN)
        last = Request(self, NO_PLAN, b"", self.limits.deadline_s)
        last.close = True
        self._waiting.append(last)
        last.refuse(refusal)

    # The owner calls these.

    def flush(self) -> None:
        """Send every answer whose turn it is."""
        if self._transport is None:
            return  # the client is gone
        waiting = self._waiting
        while waiting:
            first = waiting[0]
            if first.stream is not None:
                if not self._flush_stream(first):
                    return
            elif first.output is None:
                break
            else:
                self._transport.write(first.output)
            self._give_back(waiting.popleft().size)
        if not waiting:
            self._answered_all()
        if self._paused and not self._blocked:
            self._resume()

    def drain(self) -> None:
        """End the connection as soon as it owes no answer."""
        if not self._waiting and not self._receiving and not self._lingering:
            self._closing = True
            self._transport.close()

    def expire(self) -> None:
        """The deadline has passed: tell a client that is half-way why it is cut off."""
        self.deadline = 0.0
        if self._receiving and not self._closing and not self._blocked:
            self.refuse(Refusal(408, "G708", "The request took too long to arrive."))
        else:
            self._transport.abort()

    def probe(self) -> None:
        """Find out whether a client that sends nothing more still waits for its answer.

        An interim response (RFC 9110, section 15.2) means nothing to one that waits, and one that
        is gone answers it with a reset.
        """
        if self._ended and self._waiting and self._waiting[0].stream is None:
            self._transport.write(CONTINUE)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # Helpers.

    def _flush_stream(self, request: Request) -> bool:
        """Send the pieces that are there; return whether they were the last ones."""
        stream = request.stream
        assert stream is not None
        pieces, stream.pieces = stream.pieces, deque()
        for piece in pieces:
            self._transport.write(piece)
        return stream.ended

    def _tell_streams(self, *, blocked: bool) -> None:
        for request in self._waiting:
            if request.stream is not None:
                request.stream.blocked = blocked
                if not blocked:
                    request.stream.tell_room()

    def _answered_all(self) -> None:
        if self._lingering:
            # The refusal is out; read on a little, else a reset could overtake it.
            self.deadline = self._now() + self.limits.linger_s
            self._transport.write_eof()
        elif self._closing:
            self._transport.close()
        elif not self._receiving and not self._blocked:
            self.deadline = self._now() + self.limits.idle_s

    def _drop_body(self) -> None:
        """Forget the request that is arriving."""
        self._receiving = False
        if self._messages is not None:
            self._messages.stop()
        self._body, self._target = None, self._inbox
        self._give_back(self._held - sum(request.size for request in self._waiting))
        release, self._release = self._release, None
        if release is not None:
            release()

    def _give_back(self, size: int) -> None:
        self._held -= size
        self._owner.held_bytes -= size

    def _expect(self, value: bytes) -> None:
        if value.lower() != b"100-continue":
            self.refuse(Refusal(417, "G708", "Only Expect: 100-continue is understood."))
            return
        interim = Request(self, NO_PLAN, b"", self.limits.deadline_s)
        interim.output = CONTINUE
        self._waiting.append(interim)
        self.flush()

    def _pause(self, until: float) -> None:
        self.deadline = until
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if len(self._waiting) * 2 > self.limits.pipelined or not self._paused:
            return
        self._paused = False
        if self._receiving:
            self.deadline = self._now() + self.limits.body_s
        elif not self._waiting and not self._lingering:
            self.deadline = self._now() + self.limits.idle_s
        if not self._transport.is_closing():
            self._transport.resume_reading()


def _full() -> Refusal:
    return overloaded("The server holds as many requests as it has memory for.")
