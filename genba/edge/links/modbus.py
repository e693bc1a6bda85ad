"""Modbus TCP by pymodbus' synchronous client: registers as numbers.

Registers have 16 bits; what is longer lies in several, most significant byte first within each
(MODBUS application protocol 1.1b3, 4.2), and the order of the registers is the vendor's choice.
"""

import logging
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from genba.edge.links import Around, JsonBody, Pause, Reading, Standing
from genba.edge.links.latest import Latest, written
from genba.edge.links.payload import number, scaled
from genba.edge.links.settings import ModbusSettings, RegisterColumn, wrong

_FORMATS: Final = {
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
    "bool": "H",
}
_MOST: Final = {"holding": 125, "input": 125, "coil": 2_000, "discrete": 2_000}  # of one request
_GAP: Final = 8  # registers that nobody asked for are read along rather than asked around
_TORN: Final = 3  # times to read again while the values change under one's hands
_MARK: Final = "\0"  # of the columns that are no values: time and sequence

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # `standing` says it in one line


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Registers of one request."""

    table: str
    start: int
    count: int


class ModbusLink:
    """One connection to a controller.

    Args:
        settings: Of the link file.
        around: The clock, and the device's share of pauses.

    Raises:
        Problem: G691 when the address is none or a register lies outside 0 to 65,535.
    """

    def __init__(self, settings: ModbusSettings, around: Around) -> None:
        self.name = settings.name
        self.standing = Standing()
        self._settings = settings
        self._clock = around.clock
        self._pause = Pause(around)
        self._host, self._port = _address(settings)
        self._entities = dict(settings.entities) or {settings.entity: 0}
        self._map = {e: _placed(settings, at) for e, at in self._entities.items()}
        self._lock = threading.Lock()  # the client is not safe in two threads
        self._client: Any = None
        self._told: dict[str, float] = {}
        self._latest = Latest(
            self._write,
            around.clock,
            late_ms=max(settings.timeout_ms, settings.every_ms),
            heartbeat=settings.heartbeat is not None,
        )

    def readings(self, stop: threading.Event) -> Iterator[Reading]:
        """Yield a reading at every poll, or whenever time or sequence say that there is one."""
        if self._settings.heartbeat is not None:
            self._latest.start()
        while not stop.is_set() and self._settings.columns:
            begun_ms = self._clock.elapsed_ms()
            try:
                for entity in self._entities:
                    yield from self._one(entity)
            except (ModbusException, OSError, ConnectionError) as error:
                self._lose(error)
                self._pause.wait(stop)
                continue
            spent_ms = self._clock.elapsed_ms() - begun_ms
            self._clock.wait(stop, self._settings.every_ms - spent_ms)

    def acknowledge(self, reading: Reading) -> None:
        """Do nothing: a controller keeps nothing for anybody."""

    def resume(self, cursor: str) -> None:
        """Do nothing: a controller has only the newest values."""

    def publish(self, number: int, body: JsonBody) -> bool:
        """Write an answer to its registers, at once or not at all."""
        entity = str(body.get("entity") or "")
        self._latest.put(number, entity, written(body, self._settings.answers))
        return True

    def confirmed(self) -> list[int]:
        """Return the answers that were written, or were too late to be."""
        return self._latest.done()

    def close(self) -> None:
        """End the connection."""
        self._latest.close()
        self._lose(ConnectionError("closed"))

    def _one(self, entity: str) -> Iterator[Reading]:
        found = self._read(self._map[entity])
        now_ms = self._clock.now_ms()
        time = self._time(found.pop(f"{_MARK}time", None))
        turn = found.pop(f"{_MARK}sequence", None)
        mark = turn if turn is not None else time
        if mark is None and (self._settings.time or self._settings.sequence):
            return  # the controller is there, and nothing was measured yet
        if mark is not None and self._told.get(entity) == mark:
            return
        if mark is not None:
            self._told[entity] = mark
        time_ms = now_ms if time is None else round(time)
        known = f"{entity}@{time_ms}" + (f"#{turn:.0f}" if turn is not None else "")
        self.standing.readings += 1
        self.standing.bad += sum(value is None for value in found.values())
        yield Reading(
            id=f"{self.name}/{known}",
            source=self.name,
            entity=entity,
            time_ms=time_ms,
            received_ms=now_ms,
            values=found,
        )

    def _read(self, columns: Mapping[str, RegisterColumn]) -> dict[str, float | None]:
        """Return the values of one moment: read again where they changed meanwhile."""
        marks = {name: c for name, c in columns.items() if name.startswith(_MARK)}
        for _ in range(_TORN):
            found = self._values(columns)
            if not marks or len(blocks(columns.values())) == 1:
                break
            if self._values(marks) == {name: found[name] for name in marks}:
                break
        else:
            self.standing.detail = "the values changed while they were read"
        return found

    def _values(self, columns: Mapping[str, RegisterColumn]) -> dict[str, float | None]:
        words: dict[tuple[str, int], int] = {}
        for block in blocks(columns.values()):
            answer = self._ask(block)
            for at, word in enumerate(answer or ()):
                words[block.table, block.start + at] = int(word)
        return {name: self._number(words, column) for name, column in columns.items()}

    def _ask(self, block: Block) -> Sequence[int] | None:
        """Return the registers of a block; None where the controller has none there."""
        with self._lock:
            client = self._connected()
            ask = {
                "holding": client.read_holding_registers,
                "input": client.read_input_registers,
                "coil": client.read_coils,
                "discrete": client.read_discrete_inputs,
            }[block.table]
            answer = ask(block.start, count=block.count, device_id=self._settings.device)
        if answer.isError():
            self.standing.detail = f"{block.table} {block.start}+{block.count}: {answer}"[:200]
            return None
        bits = block.table in ("coil", "discrete")
        return list(answer.bits[: block.count] if bits else answer.registers)

    def _number(self, words: Mapping[tuple[str, int], int], column: RegisterColumn) -> float | None:
        wanted = [words.get((column.table, column.register + n)) for n in range(length(column))]
        if any(word is None for word in wanted):
            return None
        parts = [word for word in wanted if word is not None]
        return scaled(number(unpack(parts, column, self._settings.word_order)), column)

    def _time(self, value: float | None) -> float | None:
        seconds = self._settings.time is not None and self._settings.time.unit != "ms"
        return None if value is None else value * (1_000 if seconds else 1)

    def _connected(self) -> Any:
        if self._client is None:
            client = ModbusTcpClient(
                self._host, port=self._port, timeout=self._settings.timeout_ms / 1_000, retries=0
            )
            if not client.connect():
                raise ConnectionError(f"no controller at {self._host}:{self._port}")
            self._client = client
            self.standing.up()
            self._pause.reset()
        return self._client

    def _lose(self, error: Exception) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
        self.standing.down(str(error) or type(error).__name__)

    def _write(self, entity: str, values: Mapping[str, float | None]) -> bool:
        targets: Mapping[str, RegisterColumn] = self._settings.answers
        if not entity and self._settings.heartbeat is not None and "heartbeat" in values:
            targets = {"heartbeat": self._settings.heartbeat}
        base = self._entities.get(entity, 0)
        try:
            for name, value in values.items():
                if name in targets and value is not None:
                    self._write_one(
                        replace(targets[name], register=targets[name].register + base), value
                    )
        except (ModbusException, OSError, struct.error) as error:
            self.standing.detail = f"an answer could not be written: {error}"[:200]
            return False
        self.standing.published += bool(entity)
        return True

    def _write_one(self, column: RegisterColumn, value: float) -> None:
        raw = (value - column.offset) / column.scale
        with self._lock:
            client = self._connected()
            device = self._settings.device
            if column.table == "coil":
                answer = client.write_coil(column.register, bool(raw), device_id=device)
            else:
                words = pack(raw, column, self._settings.word_order)
                answer = client.write_registers(column.register, words, device_id=device)
        if answer.isError():
            raise ModbusException(str(answer))


def blocks(columns: Sequence[RegisterColumn] | Any) -> list[Block]:
    """Return the requests that read some columns: neighbours together.

    Example:
        >>> blocks([RegisterColumn(register=0), RegisterColumn(register=3, type="float32"),
        ...         RegisterColumn(register=90)])
        [Block(table='holding', start=0, count=5), Block(table='holding', start=90, count=1)]
    """
    made: list[Block] = []
    for column in sorted(columns, key=lambda c: (c.table, c.register)):
        start, stop = column.register, column.register + length(column)
        last = made[-1] if made else None
        fits = (
            last is not None
            and last.table == column.table
            and start <= last.start + last.count + _GAP
            and stop - last.start <= _MOST[column.table]
        )
        if last is not None and fits:
            count = max(last.count, stop - last.start)
            made[-1] = Block(table=last.table, start=last.start, count=count)
        else:
            made.append(Block(table=column.table, start=start, count=stop - start))
    return made


def length(column: RegisterColumn) -> int:
    """Return how many registers a value takes."""
    if column.table in ("coil", "discrete"):
        return 1
    return struct.calcsize(f">{_FORMATS[column.type]}") // 2


def unpack(words: Sequence[int], column: RegisterColumn, word_order: str) -> float:
    """Return the number in registers.

    Example:
        >>> unpack([0x4048, 0xF5C3], RegisterColumn(register=0, type="float32"), "big")
        3.140000104904175
        >>> unpack([0xF5C3, 0x4048], RegisterColumn(register=0, type="float32"), "little")
        3.140000104904175
    """
    ordered = words if word_order == "big" else list(reversed(words))
    data = struct.pack(f">{len(ordered)}H", *ordered)
    if column.table in ("coil", "discrete"):
        return float(words[0])
    value = struct.unpack(f">{_FORMATS[column.type]}", data)[0]
    return float(bool(value)) if column.type == "bool" else float(value)


def pack(value: float, column: RegisterColumn, word_order: str) -> list[int]:
    """Return a number as registers; the nearest one that the type holds.

    Example:
        >>> column = RegisterColumn(register=0)
        >>> pack(-2.4, column, "big"), pack(1e9, column, "big")
        ([65534], [32767])
    """
    shape = _FORMATS[column.type]
    if shape in "fd":
        data = struct.pack(f">{shape}", value)
    else:
        bits = 8 * struct.calcsize(f">{shape}")
        low, high = (
            (-(1 << bits - 1), (1 << bits - 1) - 1) if shape.islower() else (0, (1 << bits) - 1)
        )
        data = struct.pack(f">{shape}", min(max(round(value), low), high))
    words = list(struct.unpack(f">{len(data) // 2}H", data))
    return words if word_order == "big" else words[::-1]


def _placed(settings: ModbusSettings, base: int) -> dict[str, RegisterColumn]:
    """Return the columns of an entity, with its offset; time and sequence are everybody's."""
    found = {n: replace(c, register=c.register + base) for n, c in settings.columns.items()}
    for name in ("time", "sequence"):
        column = getattr(settings, name)
        if column is not None:
            found[f"{_MARK}{name}"] = replace(column, register=column.register + base)
    for name, column in found.items():
        if not 0 <= column.register < column.register + length(column) <= 1 << 16:
            raise wrong(
                f"The register {column.register} of {name.strip(_MARK)} lies outside 0 to 65,535.",
                f"links.{settings.name}.columns.{name.strip(_MARK)}",
                ["register = 0"],
            )
    return found


def _address(settings: ModbusSettings) -> tuple[str, int]:
    parts = urlsplit(settings.address)
    try:
        port = parts.port or 502
    except ValueError:
        port = 0
    if parts.scheme != "tcp" or not parts.hostname or not port:
        raise wrong(
            f"{settings.address!r} is no address of a Modbus server.",
            f"links.{settings.name}.address",
            ['address = "tcp://127.0.0.1:502"'],
        )
    return parts.hostname, port
