"""A simulated controller over OPC UA."""

import datetime
import logging
from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.sync import Server, ThreadLoop

from genba.testing.plc import Values, outputs

logging.getLogger("asyncua").setLevel(logging.CRITICAL)

_PATIENCE_S = 20.0


class OpcUaPlc:
    """A server with a node for each entity and column, and others that answers are written to.

    Args:
        entities: Machines.
        columns: Numbers of each.
        port: To listen on.
    """

    def __init__(self, entities: Sequence[str], columns: Sequence[str], port: int) -> None:
        self._entities, self._columns, self._port = tuple(entities), tuple(columns), port
        self._server: Any = None
        self._nodes: dict[tuple[str, str], Any] = {}

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"opc.tcp://127.0.0.1:{self._port}/genba"

    def start(self) -> None:
        """Listen; every value is bad until it is shown."""
        self._loop = ThreadLoop(_PATIENCE_S)
        self._loop.daemon = True  # whoever forgets to stop it must not wait for ever
        self._loop.start()
        server = Server(tloop=self._loop)
        server.set_endpoint(self.address)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = server.register_namespace("urn:genba:plc")
        folder = server.nodes.objects.add_folder(space, "Plant")
        for entity in self._entities:
            for name in self._columns:
                node = folder.add_variable(
                    f"ns={space};s={entity}.{name}", ua.QualifiedName(name, space), 0.0
                )
                node.write_value(_value(None, None))
                self._nodes[entity, name] = node
            for name in outputs():
                node = folder.add_variable(
                    f"ns={space};s={entity}.{name}", ua.QualifiedName(name, space), -1.0
                )
                node.set_writable()
                self._nodes[entity, name] = node
        beat = folder.add_variable(f"ns={space};s=heartbeat", "heartbeat", 0)
        beat.set_writable()
        self._nodes["", "heartbeat"] = beat
        server.start()
        self._server = server

    def show(self, entity: str, values: Values, time_ms: int) -> None:
        """Let an entity's values be read."""
        for name, value in values.items():
            self._nodes[entity, name].write_value(_value(value, time_ms))

    def answer(self, entity: str, name: str) -> float | None:
        """Return what was written; None for a bad quality."""
        found = self._nodes[entity, name].read_data_value(raise_on_bad_status=False)
        return None if found.Value.Value is None else float(found.Value.Value)

    def link(self, every_ms: int = 100) -> str:
        """Return the part of a link file that reads this controller."""
        lines = [
            "[links.plc]",
            'kind = "opcua"',
            f'address = "{self.address}"',
            f"every_ms = {every_ms}",
            f"entities = {list(self._entities)}".replace("'", '"'),
            "[links.plc.columns]",
            *(f'"{n}" = {{ node = "ns=2;s={{entity}}.{n}" }}' for n in self._columns),
        ]
        return "\n".join(lines) + "\n"

    def stop(self) -> None:
        """Go away."""
        if self._server is not None:
            self._server.stop()
            self._loop.stop()
            self._server = None


def _value(value: float | None, time_ms: int | None) -> Any:
    when = None
    if time_ms is not None:
        when = datetime.datetime.fromtimestamp(time_ms / 1_000, datetime.UTC)
    code = ua.StatusCodes.Good if value is not None else ua.StatusCodes.BadSensorFailure
    return ua.DataValue(
        Value=ua.Variant(0.0 if value is None else value, ua.VariantType.Double),
        StatusCode=ua.StatusCode(ua.UInt32(code)),
        SourceTimestamp=when,
    )
