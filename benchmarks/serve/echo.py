"""A bare echo on the server's own HTTP stack: what a request costs before anything is done with it.

It reads every request as the server does, parses no body and answers the same few bytes: an answer
of the small model. `python -m benchmarks.serve.echo PORT`
"""

import asyncio
import sys
from typing import Any, Final

import uvloop

from genba.serve.http.connection import Connection
from genba.serve.http.owner import INBOX_BYTES
from genba.serve.http.plans import Plan, Plans
from genba.serve.http.request import Release, Request
from genba.serve.http.responses import Refusal
from genba.serve.limits import Limits

_ANSWER: Final = (
    b'{"model_name":"tab","model_version":"0000000000000000000000000000000000000000000000000000'
    b'000000000000","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.25,0.5]}]}'
)


class Echo:
    """An owner of connections that does nothing."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.connections: set[Any] = set()
        self.draining = False
        self.held_bytes = 0
        self.plans = Plans()
        self.inbox = bytearray(INBOX_BYTES)

    def admit(self, plan: Plan, peer: str) -> Release | None:
        """Let everybody pass."""
        del plan, peer
        return None  # there is nothing to give back

    def handle(self, request: Request) -> None:
        """Answer at once."""
        request.respond(200, (_ANSWER,))

    def refused(self, refusal: Refusal, plan: Plan) -> None:
        """Nothing is counted."""


async def serve(port: int) -> None:
    """Serve until the process is told to stop."""
    loop, owner = asyncio.get_running_loop(), Echo()
    server = await loop.create_server(
        lambda: Connection(owner, loop), "127.0.0.1", port, backlog=1_024
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
