"""GET /metrics: the counts of this process, or of all that share its port.

A scrape reaches whichever process takes the connection, so that one asks the others over their Unix
sockets and adds up what they say. Whoever does not answer in time is left out, and two gauges show
it. What takes long, writing the text, happens on a thread.
"""

import asyncio
import functools
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric

from genba.serve.http.request import Request
from genba.serve.http.responses import MISTAKE
from genba.serve.settings import Siblings
from genba.serve.watch.metrics import KIND, Metrics, added, plain, render

_log = logging.getLogger("genba.serve")
_ANSWER_S: Final = 0.5  # that a sibling has to tell its counts; a scrape waits for 10 s by default
_ALONE: Final = Siblings()
_ANSWER_BYTES: Final = 64 << 20


class Scraper:
    """Tells the counts of this process to its siblings, and the sum to whoever scrapes.

    Args:
        metrics: Of this process.
        siblings: The processes that share the port.
    """

    def __init__(self, metrics: Metrics, siblings: Siblings = _ALONE) -> None:
        self._metrics = metrics
        self._siblings = siblings
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Listen for siblings, if there may be any."""
        if self._siblings.own is not None:
            self._siblings.own.unlink(missing_ok=True)  # of a process that had this number before
            self._server = await asyncio.start_unix_server(self._tell, self._siblings.own)

    def stop(self) -> None:
        """Do not listen any more."""
        if self._server is not None and self._siblings.own is not None:
            self._server.close()
            self._siblings.own.unlink(missing_ok=True)

    async def text(self) -> bytes:
        """Return the sum over all processes that answer, in the text format of Prometheus."""
        mine = plain(self._metrics.collect())
        others = self._siblings.others
        told = await asyncio.gather(*(_ask(path) for path in others))
        answers = [one for one in told if one is not None]
        seen = _workers(1 + len(others), 1 + len(answers))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, _sum, [mine, *answers], seen)

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(msgspec.json.encode(plain(self._metrics.collect())))
        try:
            await writer.drain()
        finally:
            writer.close()


def _sum(processes: Iterable[list[list[Any]]], seen: Iterable[Metric]) -> bytes:
    return render((*added(processes), *seen))


def _workers(known: int, answered: int) -> tuple[Metric, ...]:
    return (
        GaugeMetricFamily("genba_workers", "Processes that share the port.", value=known),
        GaugeMetricFamily(
            "genba_workers_answered", "Processes whose counts are in here.", value=answered
        ),
    )


async def _ask(path: Path) -> list[list[Any]] | None:
    """Return what a sibling counted; None when it does not say so in time."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=_ANSWER_BYTES)
            try:
                told: list[list[Any]] = msgspec.json.decode(await reader.read())
            finally:
                writer.close()
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        _log.warning("a process of this server does not tell its counts: %s", error)
        return None
    return told


class Scraped(Protocol):
    """What has a scraper."""

    metrics: Metrics
    scraper: Scraper


def text_metrics(app: Scraped, request: Request, _: tuple[str, ...]) -> None:
    """GET /metrics."""
    app.metrics.answered("metrics", 200)
    task = asyncio.get_running_loop().create_task(app.scraper.text())
    task.add_done_callback(functools.partial(_answer, request))


def _answer(request: Request, task: "asyncio.Task[bytes]") -> None:
    error = None if task.cancelled() else task.exception()
    if task.cancelled() or error is not None:
        _log.error("the metrics cannot be told", exc_info=error)
        request.refuse(MISTAKE)
    else:
        request.respond(200, (task.result(),), kind=KIND)
