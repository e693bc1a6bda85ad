"""What a connection needs from the server it belongs to."""

from typing import Any, Final, Protocol

from genba.serve.http.plans import Plan, Plans
from genba.serve.http.request import Release, Request
from genba.serve.http.responses import Refusal
from genba.serve.limits import Limits

INBOX_BYTES: Final = 256 * 1_024


class Owner(Protocol):
    """What a connection needs from the server it belongs to."""

    limits: Limits
    connections: set[Any]
    draining: bool
    held_bytes: int  # bodies of all connections that await an answer, or are still arriving
    plans: Plans
    inbox: bytearray  # what arrives is put here; one for all connections, as they read in turn

    def admit(self, plan: Plan, peer: str) -> Release | None:
        """Let a request pass before its body is looked at.

        Args:
            plan: The head of the request.
            peer: Address of the client.

        Returns:
            What must be called once when the request has its answer, if anything.

        Raises:
            Refusal: For whoever may not ask, for what is not there, and under overload.
        """
        ...

    def handle(self, request: Request) -> None:
        """Answer a request, now or later, by `Request.respond`. Never raises."""
        ...

    def refused(self, refusal: Refusal, plan: Plan) -> None:
        """Take note of a request that was refused before it was complete."""
        ...
