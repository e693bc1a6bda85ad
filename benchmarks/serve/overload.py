"""Ten times what the server can do, for half a minute: what is still answered, and how fast."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serve import home, models
from benchmarks.serve.asks import Ask, oip_binary, send
from benchmarks.serve.generator import Flow, Generator
from benchmarks.serve.latencies import recovery_s
from benchmarks.serve.load import press
from benchmarks.serve.machine import cores
from benchmarks.serve.processes import Launched, free_port

TIMES: Final = 10
DEADLINE_MS: Final = {"tab": 100, "cnn": 1_000}
_CLIENTS: Final = {"tab": 64, "cnn": 8}  # that find out what the capacity is
_CONNECTIONS: Final = {"tab": 512, "cnn": 512}
_DEPTH: Final = {"tab": 4, "cnn": 1}
#: What the generator, one Python process, can send on a core that it shares with nobody.
_MOST_PER_S: Final = 100_000.0
_WINDOW_S: Final = {"tab": 0.1, "cnn": 0.5}
_QUIET: Final = 0.5  # of the capacity, before and after


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """Seconds of the parts: quiet, at capacity, overloaded, quiet again; and of the capacity."""

    quiet: float = 3.0
    full: float = 10.0
    over: float = 30.0
    after: float = 5.0
    capacity: int = 3


QUICK: Final = Length(quiet=1.0, full=1.5, over=2.0, after=4.0, capacity=1)


def overload(name: str, length: Length) -> dict[str, Any]:
    """Measure one model of a server of its own.

    Args:
        name: Of the model.
        length: Of the parts.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "home"
        home.make(place, cores(), (name,))
        port = free_port()
        ask = oip_binary(name, models.question(name))
        with home.launch(place, port) as server:
            server.wait(lambda: send(port, ask), 60.0)
            cell = press(port, ask, _CLIENTS[name], length.capacity, server.pids)
            found = _flood(server, port, name, (ask, cell.requests_per_s), length)
    return {"capacity_per_s": cell.requests_per_s, "deadline_ms": DEADLINE_MS[name], **found}


def _flood(
    server: Launched, port: int, name: str, load: tuple[Ask, float], length: Length
) -> dict[str, Any]:
    ask, capacity = load
    over = min(TIMES * capacity, _MOST_PER_S)
    full = min(capacity, _MOST_PER_S)
    parts = [
        (_QUIET * full, length.quiet),
        (full, length.full),
        (max(over, full), length.over),
        (_QUIET * full, length.after),
    ]
    flow = Flow(
        parts=parts,
        deadline_ms=DEADLINE_MS[name],
        window_s=_WINDOW_S[name],
        connections=_CONNECTIONS[name],
        depth=_DEPTH[name],
        gives_up=name == "tab",
    )
    with Generator(port, ask, flow) as generator:
        found = generator.finish()
    quiet, at_one, at_ten, _ = found["phases"]
    ended = sum(seconds for _, seconds in parts[:3])
    normal = quiet["accepted_p99_ms"]
    alive = bool(server.pids())
    return {
        "times": at_ten["sent_per_s"] / capacity,
        "goodput": at_ten["good_per_s"] / at_one["good_per_s"] if at_one["good_per_s"] else 0.0,
        "accepted_p99_ms": at_ten["accepted_p99_ms"],
        "refused_p99_ms": at_ten["refused_p99_ms"],
        "normal_p99_ms": normal,
        "recovery_s": recovery_s(found["windows"], ended, normal) if normal else None,
        "alive": alive,
        "phases": found["phases"],
        "generator": found["generator"],
    }
