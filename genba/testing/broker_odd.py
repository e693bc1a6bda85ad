"""A small MQTT 3.1.1 broker that behaves as badly as it is told to; for tests and drills.

It keeps sessions, delivers at least once, and can deliver twice or backwards, lose what it was
sent or its acknowledgement, hang up, and be away. (OASIS, MQTT 3.1.1, 2014.)
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE, _PINGREQ, _DISCONNECT = 1, 3, 4, 8, 12, 14
_MOST: Final = 1 << 28


@dataclass(kw_only=True, slots=True)
class Manners:
    """How the broker behaves."""

    twice: bool = False  # every message is delivered two times
    backwards: bool = False  # neighbours are delivered in the wrong order
    hang_up_every: int = 0  # the connection breaks at every n-th message it is sent
    deaf_every: int = 0  # every n-th message it is sent is taken, but not acknowledged


@dataclass(slots=True)
class _Session:
    topics: list[str] = field(default_factory=list)
    waiting: dict[int, tuple[str, bytes]] = field(default_factory=dict)  # not acknowledged
    next_id: int = 1
    peer: socket.socket | None = None


class OddBroker:
    """Listens on loopback; what it was sent is in `inbox`.

    Args:
        manners: How it behaves; may be changed at any time.
        port: 0 for any that is free; it stays the same after `stop` and `start`.
    """

    def __init__(self, manners: Manners | None = None, *, port: int = 0) -> None:
        self.manners = manners or Manners()
        self.port = port
        self.inbox: list[tuple[str, bytes]] = []
        self._sessions: dict[str, _Session] = {}
        self._peers: set[socket.socket] = set()
        self._held: tuple[str, bytes] | None = None
        self._lock = threading.RLock()
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._sent = 0

    @property
    def address(self) -> str:
        """What belongs into a link file."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def unacknowledged(self) -> int:
        """Messages that no client has acknowledged."""
        with self._lock:
            return sum(len(session.waiting) for session in self._sessions.values())

    @property
    def listeners(self) -> int:
        """Clients that are connected and have subscribed."""
        with self._lock:
            return sum(bool(s.peer and s.topics) for s in self._sessions.values())

    def start(self) -> "OddBroker":
        """Listen."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._run(self._accept, listener)
        return self

    def stop(self) -> None:
        """Go away; sessions stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            _hang_up(peer)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def __enter__(self) -> "OddBroker":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message to everybody who subscribed, now or when they come back."""
        with self._lock:
            if self.manners.backwards and self._held is None:
                self._held = (topic, payload)
                return
            messages = [(topic, payload)]
            if self._held is not None:
                messages.append(self._held)
                self._held = None
            for one in messages:
                self._spread(*one)

    def _spread(self, topic: str, payload: bytes) -> None:
        for session in self._sessions.values():
            if any(_fits(wanted, topic) for wanted in session.topics):
                for _ in range(2 if self.manners.twice else 1):
                    number = session.next_id
                    session.next_id = number % 65_535 + 1
                    session.waiting[number] = (topic, payload)
                    _deliver(session, number, again=False)

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]  # a callable
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._peers.add(peer)
            self._run(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        session: _Session | None = None
        try:
            for kind, flags, body in _packets(peer):
                with self._lock:
                    if kind == _CONNECT:
                        session = self._connected(peer, body)
                    elif session is not None:
                        self._heard(peer, session, (kind, flags, body))
                if kind == _DISCONNECT:
                    break
        except OSError:
            pass
        with self._lock:
            self._peers.discard(peer)
            if session is not None and session.peer is peer:
                session.peer = None
        _hang_up(peer)
        peer.close()

    def _connected(self, peer: socket.socket, body: bytes) -> _Session:
        at = 2 + int.from_bytes(body[:2], "big") + 4  # protocol, level, flags, keep alive
        clean = bool(body[at - 3] & 2)
        client = _text(body, at)[0]
        session = _Session() if clean else self._sessions.get(client, _Session())
        known = client in self._sessions and not clean
        self._sessions[client] = session
        session.peer = peer
        peer.sendall(bytes([0x20, 2, int(known), 0]))
        for number in list(session.waiting):
            _deliver(session, number, again=True)
        return session

    def _heard(
        self, peer: socket.socket, session: _Session, packet: tuple[int, int, bytes]
    ) -> None:
        kind, flags, body = packet
        if kind == _PUBLISH:
            self._take(peer, flags, body)
        elif kind == _PUBACK:
            session.waiting.pop(int.from_bytes(body[:2], "big"), None)
        elif kind == _SUBSCRIBE:
            topic, _ = _text(body, 2)
            if topic not in session.topics:
                session.topics.append(topic)
            peer.sendall(b"\x90\x03" + body[:2] + b"\x01")
        elif kind == _PINGREQ:
            peer.sendall(b"\xd0\x00")

    def _take(self, peer: socket.socket, flags: int, body: bytes) -> None:
        self._sent += 1
        every = self.manners.hang_up_every
        if every and self._sent % every == 0:
            raise ConnectionAbortedError("hung up")
        topic, at = _text(body, 0)
        quality = flags >> 1 & 3
        payload = body[at + 2 :] if quality else body[at:]
        self.inbox.append((topic, payload))
        deaf = self.manners.deaf_every
        if quality and not (deaf and self._sent % deaf == 0):
            peer.sendall(b"\x40\x02" + body[at : at + 2])
        self._spread(topic, payload)


def _deliver(session: _Session, number: int, *, again: bool) -> None:
    if session.peer is None:
        return
    topic, payload = session.waiting[number]
    name = topic.encode()
    body = struct.pack(">H", len(name)) + name + struct.pack(">H", number) + payload
    with suppress(OSError):
        session.peer.sendall(bytes([0x32 | (8 if again else 0)]) + _length(len(body)) + body)


def _packets(peer: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    while True:
        first = _exactly(peer, 1)[0]
        size, shift = 0, 0
        while True:
            part = _exactly(peer, 1)[0]
            size |= (part & 127) << shift
            shift += 7
            if part < 128:
                break
        if size > _MOST:
            raise ConnectionAbortedError("too large")
        yield first >> 4, first & 15, _exactly(peer, size)


def _exactly(peer: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = peer.recv(size - len(found))
        if not part:
            raise ConnectionAbortedError("gone")
        found += part
    return found


def _length(size: int) -> bytes:
    found = b""
    while True:
        size, part = divmod(size, 128)
        found += bytes([part | (128 if size else 0)])
        if not size:
            return found


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    return body[at + 2 : end].decode(), end


def _fits(wanted: str, topic: str) -> bool:
    """Say whether a topic matches a filter.

    Example:
        >>> _fits("plant/+/readings", "plant/a/readings"), _fits("plant/#", "other/a")
        (True, False)
    """
    left, right = wanted.split("/"), topic.split("/")
    for at, level in enumerate(left):
        if level == "#":
            return True
        if at >= len(right) or level not in ("+", right[at]):
            return False
    return len(left) == len(right)


def _hang_up(peer: socket.socket) -> None:
    with suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
