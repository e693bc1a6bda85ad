"""New packages in and out of production while requests arrive at half of what the server can do."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.serve import home, models
from benchmarks.serve.asks import oip_binary, send
from benchmarks.serve.generator import Flow, Generator
from benchmarks.serve.latencies import disturbed_s
from benchmarks.serve.load import press
from benchmarks.serve.machine import cores
from benchmarks.serve.processes import free_port
from genba.store.home import Store

_LINE: Final = "tab"
_HALF: Final = 0.5
_MOST_PER_S: Final = 20_000.0  # the generator shall not be what is late
_DEADLINE_MS: Final = 5_000
_WINDOW_S: Final = 0.1
_AFTER_S: Final = 1.5  # looked at after each event
#: What happens, in turn: 0 and 1 are two packages.
_STEPS: Final[tuple[tuple[str, int, dict[str, float]], ...]] = (
    ("deploy", 1, {}),
    ("deploy", 0, {}),
    ("canary", 1, {"share": 0.2}),
    ("promote", 1, {}),
    ("roll_back", 1, {}),
    ("shadow", 1, {}),
    ("withdraw", 1, {}),
)


def swap(*, every_s: float, before_s: float, turns: int = 1) -> dict[str, Any]:
    """Measure swaps, canary, promotion, rollback and shadow under load.

    Args:
        every_s: Between two events.
        before_s: Quiet time first; its p99 is the normal one.
        turns: How often the whole list is gone through.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "home"
        home.make(place, cores(), (_LINE,))
        port = free_port()
        ask = oip_binary(_LINE, models.question(_LINE))
        with Store.open(place) as store, home.launch(place, port) as server:
            packages = _packages(store)
            server.wait(lambda: send(port, ask), 60.0)
            capacity = press(port, ask, 64, 1, server.pids).requests_per_s
            rate = min(_HALF * capacity, _MOST_PER_S)
            seconds = before_s + every_s * len(_STEPS) * turns + 1.0
            flow = Flow(
                parts=[(rate, seconds)],
                deadline_ms=_DEADLINE_MS,
                window_s=_WINDOW_S,
                connections=64,
                depth=8,
            )
            with Generator(port, ask, flow) as generator:
                time.sleep(before_s)
                events = list(_act(store, packages, every_s, turns))
                found = generator.finish()
    return _judge(found, events, rate)


def _packages(store: Store) -> list[str]:
    made = [
        home.package(
            store, _LINE, models.graph(_LINE, seed), home.signature(_LINE), home.engine(_LINE, 1)
        )
        for seed in (11, 12)
    ]
    home.act(store, _LINE, "deploy", made[0])
    return made


def _act(
    store: Store, packages: list[str], every_s: float, turns: int
) -> Iterator[tuple[str, float]]:
    for action, number, more in _STEPS * turns:
        home.act(store, _LINE, action, packages[number], **more)
        yield action, time.time()
        time.sleep(every_s)


def _judge(found: dict[str, Any], events: list[tuple[str, float]], rate: float) -> dict[str, Any]:
    """Compare the windows after each event with those before the first."""
    began, windows = found["began_unix"], found["windows"]
    times = [(action, moment - began) for action, moment in events]
    quiet = sorted(w["p99_ms"] for w in windows if 0.5 <= w["at_s"] < times[0][1] - _WINDOW_S)
    normal = quiet[len(quiet) // 2] if quiet else 0.0
    whole = found["phases"][0]
    failed = whole["requests"] - whole["statuses"].get("200", 0)
    noisy = disturbed_s(windows, 0.5, times[0][1] - _WINDOW_S, normal, _WINDOW_S)
    after: dict[str, dict[str, float]] = {}
    for action, moment in times:
        inside = [w for w in windows if moment - _WINDOW_S < w["at_s"] < moment + _AFTER_S]
        lasted = disturbed_s(windows, moment - _WINDOW_S, moment + _AFTER_S, normal, _WINDOW_S)
        worst = max((w["p99_ms"] for w in inside), default=0.0)
        held = after.get(action, {"worst_p99_ms": 0.0, "disturbed_s": 0.0})
        after[action] = {
            "worst_p99_ms": max(worst, held["worst_p99_ms"]),
            "disturbed_s": max(lasted, held["disturbed_s"]),
        }
    return {
        "requests": whole["requests"],
        "asked_per_s": rate,
        "statuses": whole["statuses"],
        "failed": failed,
        "events": len(times),
        "normal_p99_ms": normal,
        "quiet_disturbed_s": noisy,
        "disturbed_s": max(entry["disturbed_s"] for entry in after.values()),
        "after": after,
        "generator": found["generator"],
    }
