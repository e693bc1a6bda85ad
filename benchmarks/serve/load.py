"""Closed-loop load with wrk: so many clients, each of which asks again when it has its answer."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serve.asks import Ask
from benchmarks.serve.processes import cpu_s, machine_cpu_s

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")
_MANY: Final = 30  # seconds that a request may take before wrk calls it late


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What was measured of one server under one load."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_us: float  # of all the server's processes, per request
    requests: int
    seconds: float
    refused: int  # answers that are not 2xx or 3xx
    broken: int  # connections that failed
    late: int
    foreign_cores: float  # that others used meanwhile
    stolen_cores: float  # that the host took away

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def find_wrk() -> str:
    """Return the load generator, installed if that is possible.

    Raises:
        SystemExit: If there is none, with what to type.
    """
    if not shutil.which("wrk") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], check=False, capture_output=True)
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit(
            "The load generator wrk is not here. Type one of:\n"
            "  sudo apt-get install wrk\n  brew install wrk\n  sudo dnf install wrk"
        )
    return found


def press(
    port: int,
    ask: Ask,
    clients: int,
    seconds: int,
    pids: Callable[[], Sequence[int]],
    paths: Sequence[str] = (),
) -> Cell:
    """Ask the same question with so many clients and return what was measured.

    Args:
        port: Of the server.
        ask: The question.
        clients: Connections, each with one request under way.
        seconds: How long; wrk takes whole ones.
        pids: The server's processes.
        paths: Addresses to ask in turn; that of the question if there are none.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, headers = Path(folder) / "body", Path(folder) / "headers"
        body.write_bytes(ask.body)
        headers.write_text("".join(f"{n}: {v}\n" for n, v in ask.headers.items()))
        command = [find_wrk(), "-t1", f"-c{clients}", f"-d{seconds}s", f"--timeout={_MANY}s"]
        command += ["-s", str(_SCRIPT), f"http://127.0.0.1:{port}{ask.path}"]
        environment = {**os.environ, "BENCH_BODY": str(body), "BENCH_HEADERS": str(headers)}
        if paths:
            (Path(folder) / "paths").write_text("\n".join(paths))
            environment["BENCH_PATHS"] = str(Path(folder) / "paths")
        before = _Used(pids())
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        after = _Used(pids())
    line = next((t for t in done.stdout.splitlines() if t.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"wrk gave no result: {(done.stderr or done.stdout).strip()[-300:]}")
    return _cell(json.loads(line.removeprefix("RESULT ")), before, after)


class _Used:
    """CPU seconds used so far: by the server, by the client, by everybody."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.machine, self.stolen = machine_cpu_s()
        self.server = cpu_s(pids)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = resource.getrusage(resource.RUSAGE_SELF)
        self.client = used.ru_utime + used.ru_stime + own.ru_utime + own.ru_stime


def _cell(result: dict[str, Any], before: _Used, after: _Used) -> Cell:
    requests, seconds = int(result["requests"]), float(result["seconds"])
    good = max(requests - int(result["refused"]), 0)
    server = sum(used - before.server.get(pid, 0.0) for pid, used in after.server.items())
    foreign = after.machine - before.machine - server - (after.client - before.client)
    return Cell(
        requests_per_s=good / seconds,
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        max_ms=result["max_ms"],
        cpu_us=server / good * 1e6 if good else 0.0,
        requests=requests,
        seconds=seconds,
        refused=result["refused"],
        broken=result["broken"],
        late=result["late"],
        foreign_cores=max(foreign, 0.0) / seconds,
        stolen_cores=max(after.stolen - before.stolen, 0.0) / seconds,
    )
