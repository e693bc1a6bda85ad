"""What simulated controllers replay: rows of real or made data, one step after another.

`python -m genba.testing.plc KIND ROWS.csv` starts one that goes on by itself and prints, as one
line of JSON, its address and a link file that reads it. KIND is `opcua` or `modbus`.
"""

import argparse
import csv
import json
import math
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from genba.core.resolve import resolve
from genba.edge.clocks import Clock, SystemClock

Values = Mapping[str, float | None]
_OUTPUTS: Final = ("score", "alarm", "action")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What is replayed."""

    entities: tuple[str, ...]
    columns: tuple[str, ...]
    steps: Sequence[Mapping[str, Values]]  # entity -> its values, step by step


class Controller(Protocol):
    """A simulated controller."""

    @property
    def address(self) -> str:
        """Where it listens."""
        ...

    def start(self) -> None:
        """Listen."""
        ...

    def show(self, entity: str, values: Values, time_ms: int) -> None:
        """Let an entity's values be read; None has a bad quality, or no register's worth."""
        ...

    def answer(self, entity: str, name: str) -> float | None:
        """Return what was written for an entity, None where nothing was."""
        ...

    def link(self, every_ms: int = 100) -> str:
        """Return the part of a link file that reads this controller."""
        ...

    def stop(self) -> None:
        """Go away."""
        ...


def read_rows(path: Path, *, entity: str, time: str, columns: Sequence[str]) -> Rows:
    """Read rows from a CSV file: those of one time are one step."""
    steps: dict[str, dict[str, Values]] = {}
    entities: dict[str, None] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            entities.setdefault(row[entity])
            values = {name: _number(row.get(name, "")) for name in columns}
            steps.setdefault(row[time], {})[row[entity]] = values
    return Rows(
        entities=tuple(entities),
        columns=tuple(columns),
        steps=[steps[key] for key in sorted(steps)],
    )


def replay(
    rows: Rows, controller: Controller, clock: Clock, stop: threading.Event, *, step_ms: int
) -> int:
    """Show one step after the other, each at a whole step of the clock; return how many.

    A step's time is the clock's, not the data's: what is replayed happens now.
    """
    shown = 0
    for step in rows.steps:
        now_ms = clock.now_ms()
        next_ms = -(-now_ms // step_ms) * step_ms
        if clock.wait(stop, next_ms - now_ms):
            break
        for entity, values in step.items():
            controller.show(entity, values, next_ms)
        shown += 1
        clock.wait(stop, 1)
    return shown


def main(argv: Sequence[str]) -> int:
    """Run one controller until its rows are over or it is ended."""
    parser = argparse.ArgumentParser(prog="plc", description=__doc__)
    parser.add_argument("kind", choices=("opcua", "modbus"))
    parser.add_argument("rows", type=Path)
    parser.add_argument("--entity", default="entity")
    parser.add_argument("--time", default="time")
    parser.add_argument("--columns", required=True, help="names, with commas between")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--step-ms", type=int, default=600_000)
    parser.add_argument("--time-scale", type=float, default=1.0)
    parser.add_argument("--time-from", type=int)
    given = parser.parse_args(argv)
    columns = given.columns.split(",")
    rows = read_rows(given.rows, entity=given.entity, time=given.time, columns=columns)
    controller: Any = resolve("simulator", given.kind)(rows.entities, columns, given.port)
    controller.start()
    told = {
        "address": controller.address,
        "links": controller.link(given.step_ms // 20),
        "steps": len(rows.steps),
    }
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()
    clock = SystemClock(given.time_scale, given.time_from)
    replay(rows, controller, clock, threading.Event(), step_ms=given.step_ms)
    sys.stdin.read()  # stays until whoever started it lets go
    controller.stop()
    return 0


def outputs() -> tuple[str, ...]:
    """Return the answers that a simulated controller has places for."""
    return _OUTPUTS


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
