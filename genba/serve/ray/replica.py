"""One replica: a server of its own on the machine it was put on, and who passes requests on to it.

The server is the very process that `genba up` starts: it follows the ledger by itself (canary,
shadow, swap, rollback) and writes its predictions under its own id. It is a child, so a package
that takes it down leaves the replica to say so, and Ray puts another in its place.
"""

import os
from pathlib import Path
from typing import Any, Final

from genba.serve.process.worker import Worker
from genba.serve.ray.forward import Forwarder
from genba.serve.settings import Settings, Siblings

_START_S: Final = 120.0


class Replica:
    """A server behind Ray Serve's proxy.

    Args:
        home: The home, which this machine sees at the same path as all others.
        workers: How many replicas there are; each grants its share of a key's limits.
        respond: Makes the answer that the proxy takes, from content, status and header fields.
        behind_proxy: Whether others than this machine reach the proxy: then a key is needed.
    """

    def __init__(self, home: str, workers: int, respond: Any, *, behind_proxy: bool) -> None:
        settings = Settings(
            home=Path(home),
            port=0,
            behind_proxy=behind_proxy,
            siblings=Siblings(workers=workers, parent=os.getpid()),
        )
        self._worker = Worker(settings)
        ready = self._worker.start(timeout_s=_START_S)
        self.server = str(ready["server"])
        self._forwarder = Forwarder(int(ready["port"]))
        self._respond = respond

    async def __call__(self, request: Any) -> Any:
        """Pass a request on, byte for byte, and the answer back.

        Args:
            request: As Starlette reads it: `scope` of ASGI, and the body.
        """
        scope = request.scope
        target = scope.get("raw_path") or scope["path"].encode()
        if scope.get("query_string"):
            target += b"?" + scope["query_string"]
        reply = await self._forwarder.ask(
            scope["method"].encode(), target, scope["headers"], await request.body()
        )
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.fields}
        return self._respond(content=reply.body, status_code=reply.status, headers=fields)

    def check_health(self) -> None:
        """Say whether the server still runs; Ray asks again and again.

        Raises:
            RuntimeError: When it does not: this replica is to be replaced.
        """
        if not self._worker.running:
            raise RuntimeError(f"the server {self.server} has ended")

    def __del__(self) -> None:
        """Let the server finish what it answers, when Ray lets go of the replica."""
        worker = getattr(self, "_worker", None)
        if worker is not None:
            worker.stop()
