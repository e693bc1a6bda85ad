"""One question to a line, whatever protocol it came by: HTTP, gRPC, or a router next door."""

from collections.abc import Mapping
from typing import Any, Protocol

from genba.core.protocols import Array
from genba.serve.http.responses import Refusal
from genba.serve.oip.schema import Schema, Wanted


class Call(Protocol):
    """A question and the place where its answer goes. Exactly one of `answer` and `refuse` comes.

    Attributes:
        received: When its first byte came (`time.perf_counter`).
        deadline: When an answer is worth nothing any more (`time.perf_counter`).
        urgent: Whether somebody waits for it; others stand back, and are the first to be shed.
        size: Bytes of the request.
        caller: Id of the key that was used; empty where none is needed.
    """

    received: float
    deadline: float
    urgent: bool
    size: int
    caller: str

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more: then it need not be computed."""
        ...

    @property
    def trace(self) -> str:
        """W3C trace id of the request, 32 hexadecimal digits; empty where none was sent."""
        ...

    def write(
        self,
        schema: Schema,
        wanted: Wanted,
        outputs: Mapping[str, Array],
        *,
        line: str,
        parameters: Mapping[str, str],
    ) -> Any:
        """Encode an answer; called where it was computed, which may be a thread."""
        ...

    def answer(self, written: Any) -> None:
        """Send what `write` gave; called on the event loop."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Send a refusal instead of an answer; called on the event loop."""
        ...
