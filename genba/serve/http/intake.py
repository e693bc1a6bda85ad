"""Feedback that comes by HTTP: read and taken in on a thread, a bounded amount at a time."""

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from genba.core.problem import Problem
from genba.serve.http.request import Request
from genba.serve.http.responses import MISTAKE, Refusal, encode_json
from genba.serve.limits import Limits

_log = logging.getLogger("genba.serve")
_ROUTE = "feedback"

#: Takes line, rows and the id of the caller's key; gives the report. Runs on a thread.
Receive = Callable[[str, list[dict[str, Any]], str], Any]

_rows = msgspec.json.Decoder(list[dict[str, Any]])


class Answerer(Protocol):
    """Who counts and sends answers; the application."""

    def answer(
        self, request: Request, route: str, status: int, body: bytes, *, fields: bytes = b""
    ) -> None:
        """Count and send a JSON answer."""
        ...


class Intake:
    """Takes in feedback.

    Args:
        limits: Of the server.
        receive: Writes rows that were read.
    """

    def __init__(self, limits: Limits, receive: Receive) -> None:
        self._limits = limits
        self._receive = receive
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="genba-feedback")
        self.waiting = 0  # requests that have no answer yet

    def take(self, answerer: Answerer, request: Request, line: str) -> None:
        """Take in the rows of a request and answer it, later.

        Raises:
            Refusal: 503 when too much waits already.
        """
        if self.waiting >= self._limits.pipelined:
            raise Refusal(503, "G706", "Too much feedback is waiting.", b"Retry-After: 1\r\n")
        self.waiting += 1
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, self._take_in, line, request.body, request.caller
        )
        future.add_done_callback(functools.partial(self._taken, answerer, request))

    def close(self) -> None:
        """Wait for feedback that is being written."""
        self._threads.shutdown()

    def _take_in(self, line: str, body: bytes | bytearray, caller: str) -> Any:
        """Read rows of feedback and hand them on; on a thread, since masks take long to read."""
        try:
            rows = _rows.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Refusal(400, "G704", f"Feedback is a JSON list of rows: {error}.") from error
        limit = self._limits.feedback_rows
        if not 1 <= len(rows) <= limit:
            raise Refusal(400, "G704", f"{len(rows)} rows; from 1 to {limit} are taken at a time.")
        for row in rows:
            if row.get("mask") is not None:
                _check_mask(row["mask"], self._limits.mask_bytes)
        return self._receive(line, rows, caller)

    def _taken(self, answerer: Answerer, request: Request, future: "asyncio.Future[Any]") -> None:
        self.waiting -= 1
        error = future.exception()
        if error is None:
            answerer.answer(request, _ROUTE, 200, encode_json(future.result()))
        elif isinstance(error, Refusal):
            answerer.answer(request, _ROUTE, error.status, error.body())
        elif isinstance(error, Problem):
            status = 400 if error.exit_code == 2 else 503  # usage and data, or the store
            body = Refusal(status, error.code, error.what).body()
            answerer.answer(request, _ROUTE, status, body)
        else:
            _log.error("an error in taking in feedback", exc_info=error)
            answerer.answer(request, _ROUTE, 500, MISTAKE.body())


def _check_mask(text: Any, most: int) -> None:
    """Refuse a mask that is no text or too long; whoever takes feedback in says the rest."""
    if not isinstance(text, str):
        raise Refusal(400, "G731", "A mask is an image as base64 text.")
    if len(text) > most:
        raise Refusal(400, "G731", f"A mask has {len(text)} characters; {most} are taken.")
