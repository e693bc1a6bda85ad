"""The open-loop generator as a process of its own, so that it shares no Python with anybody."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.serve.asks import Ask

_ROOT: Final = Path(__file__).parents[2]
_LIMIT_S: Final = 150.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What is sent.

    Args:
        parts: Requests per second and seconds, one after the other.
        deadline_ms: Sent along, and after which an answer counts for nothing.
        window_s: Of the short windows of the result.
        connections: How many.
        depth: Requests under way on each.
        gives_up: A request that finds every place taken is never sent, instead of waiting.
    """

    parts: Sequence[tuple[float, float]]
    deadline_ms: float
    window_s: float
    connections: int
    depth: int
    gives_up: bool = False


class Generator:
    """A generator that has begun; a context that ends it.

    Args:
        port: Of the server.
        ask: What to ask.
        flow: How often.
    """

    def __init__(self, port: int, ask: Ask, flow: Flow) -> None:
        self._folder = tempfile.TemporaryDirectory()
        request = Path(self._folder.name) / "request"
        specification = Path(self._folder.name) / "specification.json"
        fields = {**ask.headers, "X-Genba-Deadline-Ms": f"{flow.deadline_ms:g}"}
        asked = Ask(path=ask.path, body=ask.body, headers=fields, read=ask.read)
        request.write_bytes(asked.head(f"127.0.0.1:{port}") + ask.body)
        specification.write_text(
            json.dumps({"port": port, "request": str(request), **asdict(flow)})
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serve.flood", str(specification)],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> dict[str, Any]:
        """Wait until everything is sent and answered; return the summary.

        Raises:
            RuntimeError: If the generator failed, with what it said.
        """
        out, errors = self._process.communicate(timeout=_LIMIT_S)
        if self._process.returncode:
            raise RuntimeError(f"the generator failed: {errors.strip()[-300:]}")
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def __enter__(self) -> Self:
        """Return the generator itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()
