"""Who answers a batch: the package in this process, or a server whose other users come first."""

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.values import Manifest
from genba.serve.client import Client, environment_ca, environment_key
from genba.ui.cli.predict_ask import SENT_OTHERWISE, Ask, Made, is_bad_image
from genba.ui.cli.predict_input import Part

IN_FLIGHT: Final = 4  # requests at a server at the same time
_FIELDS: Final = {"X-Genba-Priority": "batch", "X-Genba-Deadline-Ms": "30000"}
_LATER: Final = (429, 503, 504)  # there is no room now
_LONGEST_WAIT_S: Final = 30.0
_SHORTEST_WAIT_S: Final = 0.05
_PATIENCE_S: Final = 600.0  # for a server that has no room, or is not there
_UNREACHABLE: Final = "G712"
_NO_SUCH_VERSION: Final = "G703"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a part: answers, and the samples that could not be used."""

    made: tuple[Made, ...]
    refused: tuple[Mapping[str, Any], ...] = ()


class BatchClient(Client):
    """A client that stands back: it says that nobody waits, and comes again when told so.

    Args:
        url: Of the server.
        key: The server's key, if it has one.
        patience_s: How long it goes on asking one question.
    """

    def __init__(
        self, url: str, *, key: str | None = None, patience_s: float = _PATIENCE_S
    ) -> None:
        super().__init__(url, key=key, ca=environment_ca(), timeout_s=60.0)
        self._patience_s = patience_s

    def _ask(
        self, method: str, path: str, body: bytes | None, fields: Mapping[str, str]
    ) -> tuple[int, HTTPMessage, bytes]:
        until = time.monotonic() + self._patience_s
        wait_s = _SHORTEST_WAIT_S
        while True:
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            left_s = until - time.monotonic()
            try:
                status, headers, data = super()._ask(method, path, body, {**fields, **_FIELDS})
            except Problem as problem:
                if problem.code != _UNREACHABLE or left_s <= 0:
                    raise
                time.sleep(min(wait_s, left_s))
                continue
            if status not in _LATER or left_s <= 0:
                return status, headers, data
            time.sleep(min(_asked_to_wait(headers, wait_s), left_s))


def _asked_to_wait(headers: HTTPMessage, otherwise_s: float) -> float:
    """Return how long the server wants to be left alone."""
    try:
        asked_s = float(headers.get("Retry-After", ""))
    except ValueError:
        return otherwise_s
    return min(max(asked_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)


Answers = Callable[[Iterable[Part]], Iterator[Outcome]]


def answers_here(ask: Ask) -> Answers:
    """Give what asks one part after the other."""

    def answer(parts: Iterable[Part]) -> Iterator[Outcome]:
        for part in parts:
            yield carefully(ask, part)

    return answer


@contextmanager
def served(
    url: str,
    package: str,
    manifest: Manifest,
    *,
    outputs: tuple[str, ...],
    parameters: Mapping[str, float],
    patience_s: float = _PATIENCE_S,
) -> Iterator[Answers]:
    """Give what asks a server, with several requests at a time and answers in their order.

    One package answers the whole batch, with the parameters it began with.

    Args:
        url: Where the server is.
        package: Which package is asked.
        manifest: Of the package.
        outputs: Names of what is wanted.
        parameters: As they hold; sent with every request.
        patience_s: How long to go on asking one question while there is no room.
    """
    line = manifest.line
    sent = [t.name for t in manifest.signature.inputs if t.role not in SENT_OTHERWISE]
    clients: queue.SimpleQueue[Client] = queue.SimpleQueue()
    every = [
        BatchClient(url, key=environment_key(), patience_s=patience_s) for _ in range(IN_FLIGHT)
    ]
    for client in every:
        clients.put(client)

    def ask(part: Part) -> Made:
        tensors = {name: part.tensors[name] for name in sent}
        for name, value in parameters.items():
            tensors[name] = np.full(len(part), value, dtype=np.float32)
        client = clients.get()
        try:
            answer = client.infer(
                line,
                tensors,
                entities=part.entities if any(part.entities) else None,
                times=part.times,
                outputs=outputs,
                version=package,
            )
        except Problem as problem:
            raise _gone(line, package, problem) from problem
        finally:
            clients.put(client)
        return Made(
            part=part,
            outputs=answer.outputs,
            ids=answer.predictions,
            package=answer.package,
            role=answer.role,
        )

    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="genba-batch") as threads:
        try:
            yield lambda parts: _in_order(threads, ask, parts)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            for client in every:
                client.close()


def _in_order(threads: ThreadPoolExecutor, ask: Ask, parts: Iterable[Part]) -> Iterator[Outcome]:
    waiting: deque[Future[Outcome]] = deque()
    for part in parts:
        waiting.append(threads.submit(carefully, ask, part))
        if len(waiting) > 2 * IN_FLIGHT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def carefully(ask: Ask, part: Part) -> Outcome:
    """Ask about a part; where one image of several cannot be used, the others are answered.

    Raises:
        Problem: What whoever is asked says, except about an image.
    """
    try:
        return Outcome(made=(ask(part),))
    except Problem as problem:
        if not is_bad_image(problem):
            raise
        if len(part) == 1:
            refused = {
                "row": int(part.rows[0]),
                "file": part.names[0],
                "reason": problem.what,
                "code": problem.code,
            }
            return Outcome(made=(), refused=(refused,))
    alone = [carefully(ask, part.some(slice(i, i + 1))) for i in range(len(part))]
    return Outcome(
        made=tuple(made for one in alone for made in one.made),
        refused=tuple(row for one in alone for row in one.refused),
    )


def _gone(line: str, package: str, problem: Problem) -> Problem:
    """Say what it means for a batch that its package does not answer any more."""
    if problem.code != _NO_SUCH_VERSION:
        return problem
    return Problem(
        "G767",
        f"The package {package[:12]} of line {line} no longer answers at the server.",
        where=package,
        why=f"{problem.what} A batch is answered by one package from its first row to its last.",
        tries=[
            "the same command: it starts anew with the package in production now",
            f"genba predict {line} --local {package[:12]} --batch …  # goes on without the server",
            "genba explain G767",
        ],
    )
