"""Servers in turn, several times over: started, checked, pressed, stopped.

The first round tries every configuration of every peer. Later rounds repeat, for each load, the
best configuration of the three best peers (and of MLServer); our own server comes at the beginning
and at the end of each round, so that a machine that becomes faster or slower does not decide. The
median counts.
"""

import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serve import home, models
from benchmarks.serve.asks import check, send
from benchmarks.serve.load import press
from benchmarks.serve.machine import cores
from benchmarks.serve.processes import (
    Launched,
    NotStarted,
    foreign_cores,
    free_port,
    memory,
    settle,
)
from benchmarks.serve.results import Results, middle
from benchmarks.serve.servers import PEER_SERVERS, PER_CORE, NotInstalled, Server, install

#: Model, form, clients.
Load = tuple[str, str, int]
CLIENTS: Final = (1, 8, 64)
_SECONDS: Final = {
    ("tab", 1): 1, ("tab", 8): 1, ("tab", 64): 2, ("cnn", 1): 2, ("cnn", 8): 3, ("cnn", 64): 4
}  # fmt: skip
_OFTEN: Final = 1  # rounds in which images are repeated, after the first
_ALONE: Final = ("ours", "echo")
_ALWAYS: Final = ("mlserver",)  # a goal names it
_REPEATED: Final = 3  # peers that are repeated, for each load


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much is measured.

    Args:
        rounds: How often.
        quick: One second for every load.
    """

    rounds: int = 3
    quick: bool = False

    def seconds(self, load: Load) -> int:
        """Return how long a load is applied."""
        return 1 if self.quick else _SECONDS[load[0], load[2]]

    def loads(self, server: Server, turn: int) -> list[Load]:
        """Return what is asked of a server in a round."""
        every = [
            (model, form, clients)
            for model in models.NAMES
            for form in server.makers
            for clients in CLIENTS
        ]
        if server.name == "echo":
            return [load for load in every if load[0] == "tab" or load[2] == 8]
        if turn == 0:
            return every
        return [
            (m, f, c) for m, f, c in every if m == "tab" or (turn <= _OFTEN and c < CLIENTS[-1])
        ]


class Rounds:
    """Measures servers into results.

    Args:
        folder: Of its own; has the models and the home.
        results: Where numbers go.
        plan: How much.
    """

    def __init__(self, folder: Path, results: Results, plan: Plan) -> None:
        self._folder = folder
        self._results = results
        self._plan = plan
        (folder / "models").mkdir()
        self.digests = models.write_models(folder / "models")
        home.make(folder / "home", cores())

    def run(self, servers: Sequence[Server]) -> None:
        """Measure them all."""
        for server in servers:
            self._install(server)
        for turn in range(self._plan.rounds):
            say(f"round {turn + 1} of {self._plan.rounds}")
            ours = [server for server in servers if server.name == "ours"]
            for part, server in (
                *(("a", server) for server in servers),
                *(("b", server) for server in ours),
            ):
                for configuration in server.configurations[: 1 if part == "b" else None]:
                    self._block(server, configuration, turn, part)

    def _install(self, server: Server) -> None:
        version = server.version()
        try:
            install(server)
        except (NotInstalled, OSError, subprocess.SubprocessError) as problem:
            for configuration in server.configurations:
                self._results.put(
                    f"{server.name}|{configuration}|state", version, f"not installed: {problem}"
                )

    def _block(self, server: Server, configuration: str, turn: int, part: str) -> None:
        """Start a server once and apply every load that it has not seen in this round."""
        version, name = server.version(), f"{server.name}|{configuration}"
        state = self._results.get(f"{name}|state", version)
        if state not in (None, "measured"):
            return
        keys = {
            load: f"{name}|{load[0]}|{load[1]}|{load[2]}|{turn}{part}"
            for load in self._wanted(server, configuration, turn)
        }
        todo = {load: key for load, key in keys.items() if not self._results.get(key, version)}
        if not todo:
            return
        say(f"  {server.title} {configuration}")
        port = free_port()
        try:
            quiet = foreign_cores()
            folder = self._folder / server.name
            with server.launch(configuration, port, folder) as running:
                self._wait(server, running, port)
                self._checked(server, name, port, (turn, part))
                for load, key in todo.items():
                    self._press(server, running, port, load, key)
                self._note(server, running, name, quiet)
        except (NotInstalled, NotStarted, RuntimeError, OSError) as problem:
            say(f"    {problem}")
            if turn == 0 and part == "a":
                self._results.put(f"{name}|state", version, f"not measured: {problem}")

    def _wanted(self, server: Server, configuration: str, turn: int) -> list[Load]:
        loads = self._plan.loads(server, turn)
        if configuration == PER_CORE:  # images keep every core busy from one process
            return [load for load in loads if load[0] == "tab"]
        if turn == 0 or server.name in _ALONE:
            return loads
        return [load for load in loads if self._is_repeated(server, configuration, load)]

    def _is_repeated(self, server: Server, configuration: str, load: Load) -> bool:
        """Say whether this is the server's best configuration, and the server one of the best."""
        rates = self._rates(server, load)
        if rates[configuration] < max(rates.values()) or not rates[configuration]:
            return False
        best = sorted(
            (max(self._rates(peer, load).values()) for peer in PEER_SERVERS), reverse=True
        )
        return server.name in _ALWAYS or rates[configuration] >= best[_REPEATED - 1]

    def _rates(self, server: Server, load: Load) -> dict[str, float]:
        """Return requests per second of the first round by configuration."""
        rates = {}
        for configuration in server.configurations:
            key = "|".join((server.name, configuration, load[0], load[1], str(load[2]), "0a"))
            cell = self._results.get(key, server.version())
            rates[configuration] = cell["requests_per_s"] if cell else 0.0
        return rates

    def _wait(self, server: Server, running: Launched, port: int) -> None:
        def answers() -> None:
            for model in models.NAMES:
                for maker in server.makers.values():
                    ask = maker(model, models.question(model))
                    if server.name == "echo":
                        probe(port)
                    else:
                        send(port, ask)

        running.wait(answers, server.start_s)

    def _checked(self, server: Server, name: str, port: int, when: tuple[int, str]) -> None:
        """Compare its answers with ONNX Runtime's, once per configuration."""
        if server.name == "echo" or when != (0, "a"):
            return
        for model in models.NAMES:
            for maker in server.makers.values():
                check(port, model, maker)
        self._results.put(f"{name}|checked", server.version(), True)

    def _press(self, server: Server, running: Launched, port: int, load: Load, key: str) -> None:
        model, form, clients = load
        ask = server.makers[form](model, models.question(model))
        cell = press(port, ask, clients, self._plan.seconds(load), running.pids)
        if model == "cnn" and clients > 1:
            settle(running.pids())
        say(
            f"    {model} {form:6} {clients:3} clients: {cell.requests_per_s:9,.0f}/s"
            f"  p50 {cell.p50_ms:8.2f} ms  p99 {cell.p99_ms:8.1f} ms  {cell.cpu_us:9,.0f} us CPU"
            + (f"  {cell.refused} refused" if cell.refused else "")
            + (f"  (others: {cell.foreign_cores:.1f} cores)" if cell.foreign_cores > 0.3 else "")
        )
        self._results.put(key, server.version(), cell.to_json())

    def _note(self, server: Server, running: Launched, name: str, quiet: float) -> None:
        held = memory(running.pids())
        self._results.put(
            f"{name}|process",
            server.version(),
            {
                "start_s": running.start_s,
                "processes": held.processes,
                "pss_mib": held.pss_mib,
                "largest_mib": held.largest_mib,
                "foreign_before": quiet,
            },
        )
        self._results.put(f"{name}|state", server.version(), "measured")


def probe(port: int) -> None:
    """See whether somebody listens.

    Raises:
        OSError: If not.
    """
    socket.create_connection(("127.0.0.1", port), 1.0).close()


def collect(server: Server, results: Results) -> dict[str, Any]:
    """Return everything known of a server: states, processes and the medians of its loads."""
    repeats: dict[tuple[str, Load], list[Any]] = {}
    found: dict[str, Any] = {"title": server.title, "states": {}, "processes": {}, "loads": []}
    for parts, value in results.items(server.name, server.version()):
        if parts[2] == "state":
            found["states"][parts[1]] = value
        elif parts[2] == "process":
            found["processes"][parts[1]] = value
        elif len(parts) == 6:
            load = (parts[2], parts[3], int(parts[4]))
            repeats.setdefault((parts[1], load), []).append(value)
    for (configuration, (model, form, clients)), cells in repeats.items():
        head = {"configuration": configuration, "model": model, "form": form, "clients": clients}
        found["loads"].append({**head, **middle(cells)})
    return found


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)
