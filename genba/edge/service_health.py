"""How a service tells others that it is well: a file, one line for people, the service manager."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from genba.core.io import write_durable
from genba.core.problem import Problem
from genba.edge.buffer import SAMPLE, Watermark
from genba.edge.links import Standing
from genba.edge.service_forward import KIND

HEALTH_FILE: Final = "health.json"
_NOTIFY: Final = "NOTIFY_SOCKET"  # sd_notify(3): where systemd hears that a service lives


@dataclass(kw_only=True, slots=True)
class Counts:
    """What a service did since it was started."""

    readings: int = 0
    duplicates: int = 0
    answers: dict[str, int] = field(default_factory=dict)  # by who answered
    samples: int = 0
    failed: int = 0  # readings that could not be answered because of a mistake of ours
    refused: int = 0  # readings whose answers wait in memory, because the disk takes nothing
    lost: int = 0  # answers that were given up because memory was full too
    rows_from_before: int = 0  # rows of windows that a restart found again


class Health:
    """Tells how the service is.

    Args:
        path: The file, or None.
        line: Name of the line.
        out: Where the line for people goes.
    """

    def __init__(self, path: Path | None, line: str, out: TextIO | None = None) -> None:
        self._path = path
        self._line = line
        self._out = out if out is not None else sys.stderr
        self._said = ""

    def tell(
        self,
        counts: Counts,
        standings: Mapping[str, Standing],
        watermark: Watermark,
        more: Mapping[str, Any],
    ) -> None:
        """Write the file, say the line, and keep the service manager content."""
        body = {
            **more,
            "line": self._line,
            "process": os.getpid(),
            "readings": counts.readings,
            "duplicates": counts.duplicates,
            "answers": counts.answers,
            "samples": counts.samples,
            "failed": counts.failed,
            "refused": counts.refused,
            "lost": counts.lost,
            "links": {name: _plain(standing) for name, standing in standings.items()},
            "buffer": _plain(watermark),
        }
        if self._path is not None:
            with suppress(Problem, OSError):  # on a full disk the line below says so
                write_durable(self._path, json.dumps(body, indent=1).encode() + b"\n")
        self._say(sentence(counts, standings, watermark))
        notify("WATCHDOG=1")

    def _say(self, text: str) -> None:
        if text == self._said:
            return
        self._said = text
        begin, end = ("\r\x1b[2K", "") if self._out.isatty() else ("", "\n")
        with suppress(OSError, ValueError):
            self._out.write(f"{begin}{self._line}: {text}{end}")
            self._out.flush()


def sentence(counts: Counts, standings: Mapping[str, Standing], watermark: Watermark) -> str:
    """Return how a service is in one line."""
    parts = [_many(counts.readings, "reading")]
    parts += [f"{number:,} {action}" for action, number in sorted(counts.answers.items())]
    waiting = sum(n for kind, n in watermark.pending.items() if kind.startswith(KIND))
    parts.append(f"{_many(waiting, 'answer')} wait{'s' if waiting == 1 else ''}")
    if watermark.pending.get(SAMPLE):
        parts.append(_many(watermark.pending[SAMPLE], "sample"))
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    dropped = sum(watermark.dropped.values())
    if dropped:
        parts.append(f"{dropped:,} dropped by policy")
    if watermark.trouble:
        parts.append(f"the buffer cannot write: {watermark.trouble}, {counts.refused:,} held")
    for name, standing in standings.items():
        if not standing.connected:
            parts.append(f"{name} is down ({standing.detail})")
    return ", ".join(parts)


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def notify(what: str) -> bool:
    """Tell the service manager something, if there is one; say whether it was told.

    Source: sd_notify(3), the protocol of `NOTIFY_SOCKET`.
    """
    address = os.environ.get(_NOTIFY)
    if not address:
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(what.encode(), "\0" + address[1:] if address.startswith("@") else address)
        return True
    return False


def _plain(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
