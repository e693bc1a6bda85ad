"""A request of the OpenAI API on its way through a lane, and how its answer is sent."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from genba.core.protocols import Array
from genba.serve.http.request import Request, Stream
from genba.serve.http.responses import Refusal, encode_json
from genba.serve.lanes.speech import Heard, Told
from genba.serve.oip.schema import Schema, Wanted

_DONE: Final = "[DONE]"

#: Name ("" for none) and data of a server-sent event.
Event = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What every answer says of itself."""

    model: str  # as it was asked for
    created: int  # seconds since 1970 UTC
    prediction: str
    package: str
    role: str
    kept: bool  # whether it is a prediction, which can be traced and told about

    @property
    def genba(self) -> dict[str, Any]:
        """Fields of our own."""
        prediction = self.prediction if self.kept else None
        return {"prediction": prediction, "package": self.package, "role": self.role}

    def told(self, told: Told) -> dict[str, Any]:
        """Fields of our own for one answer."""
        return {**self.genba, "by": told.by, "sources": json.loads(told.sources)}

    def prediction_of(self, row: int) -> str:
        """Return the id of the prediction that a row is.

        Example:
            >>> about = About(
            ...     model="m", created=0, prediction="server-7", package="", role="", kept=True
            ... )
            >>> about.prediction_of(2)
            'server-9'
        """
        server, _, first = self.prediction.rpartition("-")
        return f"{server}-{int(first) + row}"


class Form(Protocol):
    """How the answers of one address look."""

    streamed: bool
    done: ClassVar[bool]  # whether a stream ends with a mark of its own

    def hears(self, row: int, heard: Heard, about: About) -> Iterable[Event]:
        """Return the events for a piece of an answer."""
        ...

    def ends(self, told: Sequence[Told], about: About) -> Iterable[Event]:
        """Return the events at the end of all answers."""
        ...

    def whole(self, told: Sequence[Told], about: About) -> Mapping[str, Any]:
        """Return the answers at once.

        Raises:
            Refusal: When what was written is not what was asked for.
        """
        ...


class TalkCall:
    """See `genba.serve.lanes.calls.Call` and `genba.serve.lanes.speech.Listener`.

    Args:
        request: The HTTP request.
        model: What was asked for: LINE or LINE@PACKAGE.
        form: How the answer looks.
        kept: Whether it is a prediction.
    """

    def __init__(self, request: Request, model: str, form: Form, *, kept: bool = True) -> None:
        self._request = request
        self._model = model
        self._form = form
        self._kept = kept
        self._created = int(time.time())
        self._stream: Stream | None = None
        self._waiting: dict[int, Heard] = {}  # for a client that does not read so fast
        self._about: About | None = None
        self._told: Sequence[Told] = ()
        self.received = request.received
        self.deadline = request.deadline
        self.urgent = request.urgent
        self.size = request.size
        self.caller = request.caller

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return self._request.gone or (self._stream is not None and self._stream.gone)

    @property
    def trace(self) -> str:
        """W3C trace id, empty where none was sent."""
        return self._request.trace

    @property
    def parent(self) -> str:
        """W3C id of the caller's span."""
        return self._request.parent

    # As a listener.

    @property
    def spoken(self) -> bool:
        """Whether the client has got something of the answer."""
        return self._stream is not None

    def hears(self, row: int, heard: Heard, parameters: Mapping[str, str]) -> None:
        """Send a piece of an answer."""
        if not self._form.streamed:
            return
        if self._about is None or not self.spoken:
            self._about = self._of(parameters)
        before = self._waiting.pop(row, None)
        if before is not None:
            heard = Heard(text=before.text + heard.text, tokens=(*before.tokens, *heard.tokens))
        self._waiting[row] = heard
        self._send_waiting()

    def ends(self, told: Sequence[Told]) -> None:
        """Take the whole answers."""
        self._told = told

    # As a call.

    def write(
        self,
        schema: Schema,  # noqa: ARG002  # of the protocol; texts need no schema
        wanted: Wanted,  # noqa: ARG002  # the same
        outputs: Mapping[str, Array],  # noqa: ARG002  # they are in what was told
        *,
        line: str,  # noqa: ARG002  # the client knows it by the model's name
        parameters: Mapping[str, str],
    ) -> bytes | Refusal:
        """Encode the answer; a stream has nothing to encode."""
        self._about = self._about or self._of(parameters)
        if self._form.streamed:
            return b""
        try:
            return encode_json(self._form.whole(self._told, self._about))
        except Refusal as refusal:  # the prediction was made; the client is told it is not enough
            return refusal

    def answer(self, written: bytes | Refusal) -> None:
        """Send what `write` gave."""
        if isinstance(written, Refusal):
            self.refuse(written)
        elif self._form.streamed:
            self._end()
        else:
            self._request.respond(200, (written,))

    def refuse(self, refusal: Refusal) -> None:
        """Send a refusal; in a stream it is its last event."""
        if self._stream is None:
            self._request.refuse(refusal)
            return
        self._stream.on_room = None
        self._stream.send(refusal.openai_body().decode())
        self._stream.end()

    # Helpers.

    def _of(self, parameters: Mapping[str, str]) -> About:
        return About(model=self._model, created=self._created, kept=self._kept, **dict(parameters))

    def _opened(self) -> Stream:
        if self._stream is None:
            self._stream = self._request.open_stream()
            self._stream.on_room = self._send_waiting
        return self._stream

    def _send_waiting(self, *, all_of_it: bool = False) -> None:
        """Send what waits, as far as the client reads it."""
        stream = self._opened()
        assert self._about is not None
        while self._waiting and (stream.room or all_of_it):
            row, heard = next(iter(self._waiting.items()))
            del self._waiting[row]
            self._send(self._form.hears(row, heard, self._about))

    def _end(self) -> None:
        stream = self._opened()
        stream.on_room = None
        assert self._about is not None
        self._send_waiting(all_of_it=True)
        try:
            self._send(self._form.ends(self._told, self._about))
        except Refusal as refusal:
            self.refuse(refusal)
            return
        if self._form.done:
            stream.send(_DONE)
        stream.end()

    def _send(self, events: Iterable[Event]) -> None:
        assert self._stream is not None
        for name, data in events:
            self._stream.send(encode_json(data).decode(), event=name)


def usage(told: Sequence[Told], *, prompts: int = 1) -> dict[str, int]:
    """Return how many tokens were read and written.

    Args:
        told: The answers.
        prompts: How many different prompts they are to; each counts once.
    """
    each = max(1, len(told) // max(prompts, 1))
    prompt = sum(one.counted[0] for one in told[::each])
    answer = sum(one.counted[1] for one in told)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def reason(told: Told) -> str:
    """Return why an answer ends, in the words of the API.

    Example:
        >>> reason(Told(text="", finish="end")), reason(Told(text="", finish="length"))
        ('stop', 'length')
    """
    if told.blocked:
        return "content_filter"
    return "length" if told.finish == "length" else "stop"
