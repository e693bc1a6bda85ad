"""How cost grows: with models loaded, with clients; and what forms of an image cost."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.serve import home, models
from benchmarks.serve.asks import Ask, oip_binary, oip_json, send
from benchmarks.serve.load import press
from benchmarks.serve.machine import cores
from benchmarks.serve.processes import Launched, free_port, memory

CLIENTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LOADED: Final = (1, 10, 100)
_START_S: Final = 180.0


@contextmanager
def _served(place: Path, ask: Ask) -> Iterator[tuple[int, Launched]]:
    port = free_port()
    with home.launch(place, port) as server:
        server.wait(lambda: send(port, ask), _START_S)
        yield port, server


def by_models(loaded: Sequence[int] = LOADED, seconds: int = 1) -> dict[str, Any]:
    """Return memory and cost with so many models loaded, each asked in turn.

    Args:
        loaded: How many.
        seconds: Of each load.
    """
    found = {}
    for count in loaded:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "home"
            home.make_many(place, count)
            ask = oip_binary(f"tab{count - 1}", models.question("tab"))
            paths = [f"/v2/models/tab{number}/infer" for number in range(count)]
            with _served(place, ask) as (port, server):
                idle = memory(server.pids())
                one = press(port, ask, 1, seconds, server.pids, paths)
                many = press(port, ask, 64, seconds, server.pids, paths)
                found[str(count)] = {
                    "start_s": server.start_s,
                    "pss_mib": idle.pss_mib,
                    "pss_busy_mib": memory(server.pids()).pss_mib,
                    "processes": idle.processes,
                    "one": one.to_json(),
                    "many": many.to_json(),
                }
    return found


def by_clients(clients: Sequence[int] = CLIENTS, seconds: int = 1) -> dict[str, Any]:
    """Return what so many clients of the small model get.

    Args:
        clients: How many.
        seconds: Of each load.
    """
    ask = oip_binary("tab", models.question("tab"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "home"
        home.make(place, cores(), ("tab",))
        with _served(place, ask) as (port, server):
            return {
                str(count): press(port, ask, count, seconds, server.pids).to_json()
                for count in clients
            }


def small_memory(seconds: int = 1) -> dict[str, float]:
    """Return the memory of a server with one small model: at rest, and after work."""
    ask, text = (maker("tab", models.question("tab")) for maker in (oip_binary, oip_json))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "home"
        home.make(place, cores(), ("tab",))
        with _served(place, ask) as (port, server):
            rest = memory(server.pids())
            for one in (ask, text):
                press(port, one, 64, seconds, server.pids)
            busy = memory(server.pids())
    return {
        "rest_mib": rest.largest_mib,
        "busy_mib": busy.largest_mib,
        "processes": busy.processes,
    }
