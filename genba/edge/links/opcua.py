"""OPC UA by asyncua's synchronous client: values with the source's time and its word on quality.

A status code says how good a value is (OPC UA part 4, 7.39): bad ones are missing, uncertain ones
too unless the link file says otherwise.
"""

import datetime
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from asyncua import ua
from asyncua.sync import Client, ThreadLoop

from genba.core.problem import Problem
from genba.edge.links import Around, JsonBody, Pause, Reading, Standing
from genba.edge.links.latest import Latest, written
from genba.edge.links.payload import number, scaled
from genba.edge.links.settings import NodeColumn, OpcUaSettings, wrong

_UNCERTAIN, _BAD = 1, 2  # the two highest bits of a status code
_CALL_S: Final = 10.0  # more than any timeout of the client itself
_TORN: Final = 5  # times to read again while the values change under one's hands
_SETTLE_S: Final = 0.02
_QUEUE: Final = 1_000  # changes that the server keeps between two notifications
_EPOCH: Final = datetime.datetime(1970, 1, 1)  # noqa: DTZ001  # the library gives UTC without saying so

# The library reports every lost connection with a traceback; `standing` says it in one line.
logging.getLogger("asyncua").setLevel(logging.CRITICAL)


class OpcUaLink:
    """One session with a server.

    Args:
        settings: Of the link file.
        around: The clock, and the device's share of pauses.

    Raises:
        Problem: G691 when the address is none or a node's name cannot be read.
    """

    def __init__(self, settings: OpcUaSettings, around: Around) -> None:
        self.name = settings.name
        self.standing = Standing()
        self._settings = settings
        self._clock = around.clock
        self._pause = Pause(around)
        self._entities = settings.entities or (settings.entity,)
        self._columns = _expanded(settings, settings.columns, self._entities)
        self._answers = _expanded(settings, settings.answers, self._entities)
        self._client: Any = None
        self._loop: ThreadLoop | None = None
        self._lock = threading.Lock()
        self._told: dict[str, int] = {}  # entity -> time of its last reading
        self._latest = Latest(
            self._write,
            around.clock,
            late_ms=max(settings.timeout_ms, settings.every_ms),
            heartbeat=settings.heartbeat is not None,
        )
        if not settings.address.startswith("opc.tcp://"):
            raise wrong(
                f"{settings.address!r} is no address of an OPC UA server.",
                f"links.{self.name}.address",
                ['address = "opc.tcp://127.0.0.1:4840"'],
            )

    def readings(self, stop: threading.Event) -> Iterator[Reading]:
        """Yield a reading whenever an entity's values have a new time."""
        if self._settings.heartbeat is not None:
            self._latest.start()
        work = self._polled if self._settings.mode == "poll" else self._told_of
        while not stop.is_set():
            try:
                yield from work(stop)
            except Exception as error:  # noqa: BLE001  # whatever the library raises, the link goes on
                self._lose(error)
                self._pause.wait(stop)

    def acknowledge(self, reading: Reading) -> None:
        """Do nothing: a server keeps nothing for anybody."""

    def resume(self, cursor: str) -> None:
        """Do nothing: a server has only the newest values."""

    def publish(self, number: int, body: JsonBody) -> bool:
        """Write an answer to its nodes, at once or not at all."""
        entity = str(body.get("entity") or "")
        self._latest.put(number, entity, written(body, self._settings.answers))
        return True

    def confirmed(self) -> list[int]:
        """Return the answers that were written, or were too late to be."""
        return self._latest.done()

    def close(self) -> None:
        """End the session."""
        self._latest.close()
        self._lose(ConnectionError("closed"))
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def _polled(self, stop: threading.Event) -> Iterator[Reading]:
        client = self._connected()
        nodes = {entity: _nodes(client, cs) for entity, cs in self._columns.items()}
        every = [node for some in nodes.values() for node in some]
        while not stop.is_set():
            begun_ms = self._clock.elapsed_ms()
            values = iter(client.read_attributes(every))
            for entity, columns in self._columns.items():
                found: Mapping[str, Any] = {name: next(values) for name in columns}
                if self._is_new(entity, found):
                    found = self._settled(client, found, nodes[entity])
                yield from self._reading(entity, found)
            spent_ms = self._clock.elapsed_ms() - begun_ms
            self._clock.wait(stop, self._settings.every_ms - spent_ms)

    def _settled(
        self, client: Any, found: Mapping[str, Any], nodes: Sequence[Any]
    ) -> Mapping[str, Any]:
        """Return values of one moment: read again while a controller is still writing them.

        Values that go on having several times are a controller's that stamps only what changed.
        """
        for _ in range(_TORN):
            moments = [_moment(value) for value in found.values()]
            if len(set(moments)) <= 1:
                break
            time.sleep(_SETTLE_S)
            found = dict(zip(found, client.read_attributes(nodes), strict=True))
            if [_moment(value) for value in found.values()] == moments:
                break
        return found

    def _is_new(self, entity: str, values: Mapping[str, Any]) -> bool:
        moments = [moment for value in values.values() if (moment := _moment(value)) is not None]
        return bool(moments) and self._told.get(entity) != max(moments)

    def _told_of(self, stop: threading.Event) -> Iterator[Reading]:
        client = self._connected()
        newest: dict[str, dict[str, Any]] = {entity: {} for entity in self._columns}
        owners: dict[str, tuple[str, str]] = {}
        nodes: list[Any] = []
        for entity, columns in self._columns.items():
            for name, node in zip(columns, _nodes(client, columns), strict=True):
                owners[node.nodeid.to_string()] = (entity, name)
                nodes.append(node)
        subscription = client.create_subscription(self._settings.every_ms)
        subscription.subscribe_data_change(nodes, queuesize=_QUEUE)
        changed: dict[str, int] = {}
        while not stop.is_set():
            event = subscription.next_event(timeout=self._settings.every_ms / 2_000)
            client.check_connection()
            if event is None:
                for entity in list(changed):
                    yield from self._reading(entity, newest[entity])
                    del changed[entity]
                continue
            entity, name = owners[event.node.nodeid.to_string()]
            value = event.data.monitored_item.Value
            moment = _moment(value)
            if entity in changed and moment is not None and changed[entity] < moment:
                yield from self._reading(entity, newest[entity])  # the moment before is complete
            newest[entity][name] = value
            changed[entity] = moment if moment is not None else changed.get(entity, 0)

    def _reading(self, entity: str, values: Mapping[str, Any]) -> Iterator[Reading]:
        moments = [moment for value in values.values() if (moment := _moment(value)) is not None]
        now_ms = self._clock.now_ms()
        time_ms = max(moments, default=now_ms)
        if self._told.get(entity) == time_ms:
            return
        columns = self._columns[entity]
        found = {name: self._value(value, columns[name]) for name, value in values.items()}
        silent = all(value.SourceTimestamp is None for value in values.values())
        if silent and all(value is None for value in found.values()):
            return  # the server is there, and no source has said anything yet
        self._told[entity] = time_ms
        self.standing.readings += 1
        self.standing.bad += sum(value is None for value in found.values())
        yield Reading(
            id=f"{self.name}/{entity}@{time_ms}",
            source=self.name,
            entity=entity,
            time_ms=time_ms,
            received_ms=now_ms,
            values=found,
        )

    def _value(self, value: Any, column: NodeColumn) -> float | None:
        severity = (value.StatusCode.value if value.StatusCode is not None else 0) >> 30
        uncertain = severity == _UNCERTAIN and self._settings.uncertain == "missing"
        if severity >= _BAD or uncertain or value.Value is None:
            return None
        return scaled(number(value.Value.Value), column)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._loop = self._loop or _started()
                self._client = self._session(self._loop)
                self.standing.up()
                self._pause.reset()
            return self._client

    def _session(self, loop: ThreadLoop) -> Any:
        settings = self._settings
        client = Client(settings.address, timeout=settings.timeout_ms / 1_000, tloop=loop)
        if settings.user:
            client.set_user(settings.user)
        if settings.password_file:
            client.set_password(Path(settings.password_file).read_text(encoding="utf-8").strip())
        if settings.security:
            client.set_security_string(settings.security)
        client.connect()
        return client

    def _lose(self, error: BaseException) -> None:
        with self._lock:
            client, self._client = self._client, None
            self.standing.down(f"{type(error).__name__}: {error}".rstrip(": "))
            if client is not None:
                with suppress(Exception):
                    client.disconnect()

    def _write(self, entity: str, values: Mapping[str, float | None]) -> bool:
        targets = self._answers.get(entity, {})
        if not entity and self._settings.heartbeat is not None:
            targets = {"heartbeat": self._settings.heartbeat}
        try:
            client = self._client if self._columns else self._connected()
            if client is None:
                return False
            nodes = _nodes(client, {name: targets[name] for name in values if name in targets})
            chosen = [(values[n], targets[n]) for n in values if n in targets]
            for node, (value, column) in zip(nodes, chosen, strict=True):
                self._write_one(node, value, column)
        except Exception as error:  # noqa: BLE001  # as above; the reading side connects again
            self.standing.detail = f"an answer could not be written: {error}"[:200]
            if not self._columns:
                self._lose(error)
            return False
        self.standing.published += bool(entity)
        return True

    def _write_one(self, node: Any, value: float | None, column: NodeColumn) -> None:
        kind = node.read_data_type_as_variant_type()
        if value is None:
            code = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNoData))
            node.write_value(
                ua.DataValue(Value=ua.Variant(None, ua.VariantType.Null), StatusCode=code)
            )
            return
        raw = (value - column.offset) / column.scale
        shaped: Any = raw
        if kind == ua.VariantType.Boolean:
            shaped = bool(raw)
        elif kind not in (ua.VariantType.Float, ua.VariantType.Double):
            shaped = round(raw)
        node.write_value(ua.DataValue(Value=ua.Variant(shaped, kind)))


def _started() -> ThreadLoop:
    loop = ThreadLoop(_CALL_S)
    loop.daemon = True
    loop.start()
    return loop


def _nodes(client: Any, columns: Mapping[str, NodeColumn]) -> list[Any]:
    return [client.get_node(column.node) for column in columns.values()]


def _expanded(
    settings: OpcUaSettings, columns: Mapping[str, NodeColumn], entities: Sequence[str]
) -> dict[str, dict[str, NodeColumn]]:
    """Return the columns of every entity, its name put into the names of the nodes."""
    found: dict[str, dict[str, NodeColumn]] = {}
    for entity in entities if columns else ():
        found[entity] = {name: _named(settings, name, c, entity) for name, c in columns.items()}
    return found


def _named(settings: OpcUaSettings, name: str, column: NodeColumn, entity: str) -> NodeColumn:
    node = column.node.replace("{entity}", entity)
    try:
        ua.NodeId.from_string(node)
    except Exception as error:  # the library raises several kinds
        raise _no_node(settings, name, node, str(error)) from error
    return NodeColumn(
        node=node,
        unit=column.unit,
        scale=column.scale,
        offset=column.offset,
        missing=column.missing,
    )


def _no_node(settings: OpcUaSettings, name: str, node: str, why: str) -> Problem:
    return wrong(
        f"{node!r} is no name of a node.",
        f"links.{settings.name}.columns.{name}",
        [f'{name} = {{ node = "ns=2;s={name}" }}'],
        why,
    )


def _moment(value: Any) -> int | None:
    """Return when a value was measured, ms since 1970, by the source or else by the server."""
    when = value.SourceTimestamp or value.ServerTimestamp
    if when is None:
        return None
    plain = when.replace(tzinfo=None)
    return int(round((plain - _EPOCH) / datetime.timedelta(milliseconds=1)))
