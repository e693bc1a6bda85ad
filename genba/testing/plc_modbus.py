"""A simulated controller over Modbus TCP."""

import asyncio
import logging
import struct
import threading
from collections.abc import Sequence
from typing import Any, Final

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from genba.testing.plc import Values, outputs

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

_STRIDE: Final = 100  # registers between two entities
_TIME, _FIRST, _ANSWERS = 0, 10, 60  # of an entity: its time (int64), its values, its answers
_HEARTBEAT: Final = 9_000
_SIZE: Final = 10_000
_READ, _WRITE = 3, 16
_NOTHING: Final = -9_999.0  # a register cannot be of bad quality
_PATIENCE_S: Final = 10.0


class ModbusPlc:
    """A server with two registers (float32) for each entity and column.

    Args:
        entities: Machines.
        columns: Numbers of each, 25 at most.
        port: To listen on.
    """

    def __init__(self, entities: Sequence[str], columns: Sequence[str], port: int) -> None:
        self._entities, self._columns, self._port = tuple(entities), tuple(columns), port
        self._loop: Any = None
        self._thread: Any = None
        self._server: Any = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"tcp://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; nothing is there until it is shown."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._begin())
        for at in range(len(self._entities)):
            for n in range(len(self._columns)):
                self._set(at * _STRIDE + _FIRST + 2 * n, struct.pack(">f", _NOTHING))
            for n in range(len(outputs())):
                self._set(at * _STRIDE + _ANSWERS + 2 * n, struct.pack(">f", _NOTHING))

    def show(self, entity: str, values: Values, time_ms: int) -> None:
        """Let an entity's values be read; the time comes last, as it says that they are new."""
        base = self._entities.index(entity) * _STRIDE
        data = b"".join(
            struct.pack(">f", _NOTHING if values.get(n) is None else values[n])
            for n in self._columns
        )
        self._set(base + _FIRST, data)
        self._set(base + _TIME, struct.pack(">q", time_ms))

    def answer(self, entity: str, name: str) -> float | None:
        """Return what was written, None where nothing was."""
        base = self._entities.index(entity) * _STRIDE
        at = base + _ANSWERS + 2 * outputs().index(name)
        words = self._do(self._server.async_getValues(1, _READ, at, 2))
        value = float(struct.unpack(">f", struct.pack(">2H", *words))[0])
        return None if value == _NOTHING else value

    def heartbeat(self) -> int:
        """Return the heartbeat."""
        return int(self._do(self._server.async_getValues(1, _READ, _HEARTBEAT, 1))[0])

    def link(self, every_ms: int = 100) -> str:
        """Return the part of a link file that reads this controller."""
        places = ", ".join(f'"{e}" = {at * _STRIDE}' for at, e in enumerate(self._entities))
        lines = [
            "[links.plc]",
            'kind = "modbus"',
            f'address = "{self.address}"',
            f"every_ms = {every_ms}",
            f"entities = {{ {places} }}",
            f'time = {{ register = {_TIME}, type = "int64", unit = "ms", missing = [0] }}',
            "[links.plc.columns]",
            *(
                f'"{name}" = {{ register = {_FIRST + 2 * n}, type = "float32", '
                f"missing = [{_NOTHING}] }}"
                for n, name in enumerate(self._columns)
            ),
        ]
        return "\n".join(lines) + "\n"

    def answers(self) -> str:
        """Return the part of a link file that writes to this controller."""
        lines = [
            f"heartbeat = {{ register = {_HEARTBEAT} }}",
            "[links.plc.answers]",
            *(
                f'{name} = {{ register = {_ANSWERS + 2 * n}, type = "float32" }}'
                for n, name in enumerate(outputs())
            ),
        ]
        return "\n".join(lines) + "\n"

    def stop(self) -> None:
        """Go away."""
        if self._server is not None:
            self._do(self._server.shutdown())
            self._server = None
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _set(self, at: int, data: bytes) -> None:
        words = list(struct.unpack(f">{len(data) // 2}H", data))
        self._do(self._server.async_setValues(1, _WRITE, at, words))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)

    async def _begin(self) -> None:
        registers = SimData(address=0, count=_SIZE, values=0, datatype=DataType.REGISTERS)
        device = SimDevice(id=1, simdata=[registers])
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self._port))
        await self._server.serve_forever(background=True)
