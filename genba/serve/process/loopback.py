"""A short trial on the loopback: how many requests one, two or more processes answer on one port.

`python -m genba.serve.process.loopback answer PORT` answers as a server with a small model does:
the same event loop, a small product of matrices per request. With `ask PORT S` it asks for so many
seconds and prints how many answers came.
"""

import asyncio
import selectors
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Final, cast

import numpy as np

from genba.serve.process.listen import listen, reserve
from genba.serve.process.loop import new_loop

_HOST: Final = "127.0.0.1"
_QUESTION: Final = b"POST /v2/models/x/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_END: Final = b"\r\n\r\n"
_PIPELINED: Final = 4
_CONNECTIONS: Final = 16  # of one who asks; the kernel spreads them over the processes
_ASKERS: Final = 2
_SIDE: Final = 64  # of the matrices: about ten microseconds of one core
_BYTES: Final = 65_536
_READY: Final = "ready"
_PATIENCE_S: Final = 20.0


def requests_per_s(processes: int, seconds: float) -> float:
    """Return how many requests so many processes on one port answer in a second.

    Args:
        processes: That answer.
        seconds: How long they are asked.
    """
    with ExitStack() as stack:
        port = stack.enter_context(reserve(_HOST, 0)).getsockname()[1]
        for _ in range(processes):
            child = _child(stack, "answer", port)
            assert child.stdout is not None
            if child.stdout.readline().strip() != _READY:
                raise OSError("a process of the trial did not start")
        asking = [_child(stack, "ask", port, seconds) for _ in range(_ASKERS)]
        return sum(float(child.communicate(timeout=_PATIENCE_S)[0]) for child in asking)


def _child(stack: ExitStack, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "genba.serve.process.loopback", *map(str, arguments)]
    child = subprocess.Popen(  # noqa: S603  # this Python and nothing of a user's
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    stack.callback(_end, child)
    return child


def _end(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.communicate()


class _Answers(asyncio.Protocol):
    """Answers every request with the same few bytes."""

    def __init__(self) -> None:
        self._matrix = np.ones((_SIDE, _SIDE), dtype=np.float32)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Those of uvloop are one in everything but their class.
        self._write = cast(asyncio.WriteTransport, transport).write

    def data_received(self, data: bytes) -> None:
        # A question is one packet on the loopback, or several whole ones.
        for _ in range(data.count(_END)):
            np.matmul(self._matrix, self._matrix)
            self._write(_ANSWER)


async def _answer(port: int) -> None:
    loop = asyncio.get_running_loop()
    with listen(_HOST, port, shared=True) as listener:
        server = await loop.create_server(_Answers, sock=listener)
        sys.stdout.write(_READY + "\n")
        sys.stdout.flush()
        await server.serve_forever()


def ask(port: int, seconds: float) -> float:
    """Ask a port for some seconds and return the answers per second."""
    asked = _QUESTION * _PIPELINED
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        left: dict[socket.socket, int] = {}
        for _ in range(_CONNECTIONS):
            client = stack.enter_context(socket.create_connection((_HOST, port), _PATIENCE_S))
            selector.register(client, selectors.EVENT_READ, client)
            left[client] = len(_ANSWER) * _PIPELINED
            client.sendall(asked)
        started, answers = time.perf_counter(), 0
        while (lasted := time.perf_counter() - started) < seconds:
            for key, _ in selector.select(seconds):
                client = key.data
                left[client] -= len(client.recv(_BYTES))
                if not left[client]:
                    answers += _PIPELINED
                    left[client] = len(_ANSWER) * _PIPELINED
                    client.sendall(asked)
        return answers / lasted


def main(arguments: list[str]) -> None:
    """Answer, or ask."""
    role, port, *rest = arguments
    if role == "ask":
        sys.stdout.write(f"{ask(int(port), float(rest[0]))}\n")
        return
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_answer(int(port)))


if __name__ == "__main__":
    main(sys.argv[1:])
