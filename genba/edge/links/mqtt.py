"""MQTT, version 3.1.1 or 5, by paho: at least once in both directions.

A message is acknowledged to the broker only when its reading is safe here; the session is kept
under one client id, so what came meanwhile is delivered after a restart. What a broker delivers
twice has the same id. (OASIS, MQTT 3.1.1, 2014, section 4.4; MQTT 5.0, 2019, section 4.4.)
"""

import json
import queue
import socket
import ssl
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from genba.core.problem import Problem
from genba.edge.links import Around, JsonBody, Reading, Standing
from genba.edge.links import payload as reading_of
from genba.edge.links.payload import Unreadable
from genba.edge.links.settings import MqttSettings, wrong

_ROOM: Final = 1_000  # readings that wait for the service
_IN_FLIGHT: Final = 64  # answers that the broker has not acknowledged
_LONGEST_PAUSE_S: Final = 60
_DAY_S: Final = 86_400
_MOST_BYTES: Final = 64 << 20  # of a message
_LOOK_S: Final = 0.2


class MqttLink:
    """One connection to a broker.

    Args:
        settings: Of the link file.
        around: The clock, the line's name for topics, and the device's share of pauses.

    Raises:
        Problem: G691 when the address is none, G101 when a file it names cannot be read.
    """

    def __init__(self, settings: MqttSettings, around: Around) -> None:
        self.name = settings.name
        self.standing = Standing()
        self._settings = settings
        self._clock = around.clock
        self._line = around.line
        self._share = around.share
        self._arrived: queue.Queue[Reading] = queue.Queue(_ROOM)
        self._sent: dict[int, int] = {}  # message id -> number
        self._early: dict[int, bool] = {}  # answered before `publish` returned -> whether taken
        self._confirmed: deque[int] = deque()
        self._lock = threading.Lock()
        self._started = False
        self._again = False  # whether messages were left with the broker
        self._host, self._port, self._secure = _address(settings)
        self._topic("all")
        self._client = self._made()

    def readings(self, stop: threading.Event) -> Iterator[Reading]:
        """Yield what the broker delivers."""
        self._start()
        while not stop.is_set():
            try:
                yield self._arrived.get(timeout=_LOOK_S)
            except queue.Empty:
                self._ask_again()

    def acknowledge(self, reading: Reading) -> None:
        """Let the broker forget a message; not where the connection is another one by now."""
        session, number, left = reading.token
        left.discard(reading.id)
        if not left and session == self.standing.connections:
            self._client.ack(number, 1)

    def resume(self, cursor: str) -> None:
        """Do nothing: the broker knows what it has not delivered."""

    def publish(self, number: int, body: JsonBody) -> bool:
        """Send an answer unless the broker is away or has many to acknowledge."""
        self._start()
        if not self.standing.connected or len(self._sent) >= _IN_FLIGHT:
            return False
        topic = self._topic(str(body.get("entity") or "all"))
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        # Not with our lock held: the library holds its own while it calls `_on_publish`.
        info = self._client.publish(topic, data, qos=1)
        with self._lock:
            if info.mid not in self._early:
                self._sent[info.mid] = number
            elif self._early.pop(info.mid):
                self._confirmed.append(number)
        return True

    def confirmed(self) -> list[int]:
        """Return what the broker acknowledged."""
        with self._lock:
            found = list(self._confirmed)
            self._confirmed.clear()
        self.standing.published += len(found)
        return found

    def close(self) -> None:
        """Say goodbye to the broker; the session stays."""
        if self._started:
            self._client.disconnect()
            self._client.loop_stop()
        self.standing.down("closed")

    def _ask_again(self) -> None:
        """Break the connection where there was no room for a message: on the next one it comes."""
        if self._again:
            self._again = False
            with suppress(OSError, AttributeError):  # it may be broken already
                self._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]  # as above

    def _topic(self, entity: str) -> str:
        try:
            return self._settings.answers.format(line=self._line, entity=_level(entity))
        except (LookupError, ValueError, AttributeError) as error:
            raise wrong(
                f"{self._settings.answers!r} names something that is not known.",
                f"links.{self.name}.answers",
                ['answers = "genba/{line}/{entity}"'],
            ) from error

    def _start(self) -> None:
        with self._lock:
            if self._started:
                return
            self._started = True
        extra: dict[str, Any] = {}
        if self._settings.version == "5":
            properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # has no types here
            properties.SessionExpiryInterval = int(self._settings.session_days * _DAY_S)
            properties.ReceiveMaximum = _IN_FLIGHT
            extra = {"clean_start": False, "properties": properties}
        self._client.connect_async(
            self._host, self._port, keepalive=self._settings.keepalive_s, **extra
        )
        self._client.loop_start()

    def _made(self) -> paho.Client:
        five = self._settings.version == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._settings.client_id or f"genba-{self._line}-{self.name}",
            clean_session=None if five else False,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        client.suppress_exceptions = True  # its thread must not end by one odd message
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.connect_timeout = self._settings.timeout_ms / 1_000
        # Different on each device: after an outage they must not all come at once.
        client.reconnect_delay_set(1, round(_LONGEST_PAUSE_S * (0.5 + 0.5 * self._share)))
        if self._settings.user:
            client.username_pw_set(self._settings.user, _secret(self._settings))
        if self._secure:
            client.tls_set_context(_tls(self._settings))
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        return client

    def _on_connect(self, client: paho.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            self.standing.down(f"the broker refuses: {reason}")
            return
        self.standing.up()
        if self._settings.topic:
            client.subscribe(self._settings.topic, qos=self._settings.qos)

    def _on_subscribe(self, _: paho.Client, __: Any, ___: int, reasons: Any, ____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self.standing.detail = f"the broker refuses the topic {self._settings.topic}"

    def _on_connect_fail(self, _: paho.Client, __: Any) -> None:
        self.standing.down(f"no broker at {self._host}:{self._port}")

    def _on_disconnect(self, _: paho.Client, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        self.standing.down(f"the broker went away: {reason}")

    def _on_publish(self, _: paho.Client, __: Any, mid: int, reason: Any, ___: Any) -> None:
        """Note what the broker says of an answer; one that it refuses is tried again later."""
        if reason.is_failure:
            self.standing.detail = f"the broker refuses an answer: {reason}"
        with self._lock:
            number = self._sent.pop(mid, None)
            if number is None:
                self._early[mid] = not reason.is_failure
            elif not reason.is_failure:
                self._confirmed.append(number)

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        try:
            found = self._read(message)
        except (Unreadable, ValueError) as error:  # a topic that is no text, for instance
            self.standing.refused += 1
            self.standing.detail = f"a message is refused: {error}"
            client.ack(message.mid, message.qos)  # nobody will ever be able to read it
            return
        for reading in found:
            self.standing.readings += 1
            self.standing.bad += sum(value is None for value in reading.values.values())
            try:  # while this waits, nothing more is read from the broker
                self._arrived.put(reading, timeout=self._settings.keepalive_s / 2)
            except queue.Full:  # a message of quality 1 comes again on the next connection
                self.standing.lost += message.qos == 0
                self._again = self._again or message.qos > 0

    def _read(self, message: paho.MQTTMessage) -> list[Reading]:
        left: set[str] = set()
        token = (self.standing.connections, message.mid, left)
        data = bytes(message.payload)
        now_ms = self._clock.now_ms()
        levels = message.topic.split("/")
        at = self._settings.entity_level
        named = levels[at] if at is not None and at < len(levels) else self._settings.entity
        if len(data) > _MOST_BYTES:
            raise Unreadable(f"it has {len(data) / 1e6:.0f} MB; {_MOST_BYTES / 1e6:.0f} are most")
        if self._settings.payload == "image":
            bodies: list[Mapping[str, Any]] = [{}]
        else:
            bodies = reading_of.read_json(data)
        found = []
        for place, body in enumerate(bodies):
            entity = reading_of.text_of(body, self._settings.entity_field) or named
            time_ms = reading_of.time_of(body, self._settings.time_field)
            given = reading_of.text_of(body, self._settings.id_field)
            told = f"{entity}@{time_ms}" if time_ms is not None else ""
            known = given or told or f"{reading_of.fingerprint(data)}.{place}.{now_ms}"
            image = data if self._settings.payload == "image" else None
            if image is not None:
                known = f"{message.topic}.{reading_of.fingerprint(image)}"
            found.append(
                Reading(
                    id=f"{self.name}/{known}",
                    source=self.name,
                    entity=entity,
                    time_ms=now_ms if time_ms is None else time_ms,
                    received_ms=now_ms,
                    values=reading_of.values_of(body, self._settings.columns),
                    image=image or reading_of.image_of(body, self._settings.image_field),
                    token=token,
                )
            )
        left.update(reading.id for reading in found)
        return found


def _address(settings: MqttSettings) -> tuple[str, int, bool]:
    where = f"links.{settings.name}.address"
    tries = ['address = "mqtt://127.0.0.1:1883"']
    parts = urlsplit(settings.address)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise wrong(f"{settings.address!r} is no address of a broker.", where, tries)
    if parts.username or parts.password:
        raise wrong("A password does not belong into the link file.", where, ['user = "…"',
                    'password_file = "/etc/genba/broker.password"'])  # fmt: skip
    secure = parts.scheme == "mqtts"
    try:
        port = parts.port or (8883 if secure else 1883)
    except ValueError as error:
        raise wrong(f"{settings.address!r} has no usable port.", where, tries) from error
    return parts.hostname, port, secure


def _secret(settings: MqttSettings) -> str | None:
    if not settings.password_file:
        return None
    try:
        return Path(settings.password_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise _no_file(settings.password_file, error) from error


def _tls(settings: MqttSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.certificate_file:
            context.load_cert_chain(settings.certificate_file, settings.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise _no_file(settings.ca_file or settings.certificate_file, error) from error
    return context


def _no_file(path: str, error: Exception) -> Problem:
    return Problem(
        "G101",
        f"{path} cannot be read.",
        where=path,
        why=str(error),
        tries=[f"ls -l {path}", "genba explain G101"],
    )


def _level(name: str) -> str:
    """Return a name as one level of a topic."""
    return "".join("_" if letter in "/+#\0" else letter for letter in name) or "all"
