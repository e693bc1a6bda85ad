"""`POST /v1/embeddings`: texts to vectors, by the sentence encoder in the package of a line."""

import base64
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import numpy as np

from genba.core.protocols import Array
from genba.serve.http.request import Request
from genba.serve.http.responses import MISTAKE, Refusal, encode_json, overloaded
from genba.serve.lanes.lines import LineService
from genba.serve.lanes.talk import TalkLane
from genba.serve.openai.fields import Count, Name, bad_field

if TYPE_CHECKING:
    from genba.serve.http.routes import App

_TEXTS: Final = 256
_ROUTE: Final = "embeddings"


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """The body of a request."""

    model: Name
    input: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None

    @property
    def texts(self) -> list[str]:
        """What is embedded."""
        return [self.input] if isinstance(self.input, str) else self.input


def embedded(
    app: "App", request: Request, line: LineService, version: str | None, asked: EmbeddingRequest
) -> None:
    """Answer a request, later: the encoder runs on a thread.

    Raises:
        Refusal: 400 for a line without an encoder, 503 when too much waits.
    """
    services = [one for package, _, one in line.services() if version in (None, package)]
    service = services[0] if services else None
    if service is None or service.model.embed is None or not isinstance(service.lane, TalkLane):
        refusal = Refusal(400, "G784", f"The package of line {line.name} has no sentence encoder.")
        refusal.param = "model"
        raise refusal
    texts, package = asked.texts, service.package
    if not service.lane.aside(
        partial(_computed, service.model, texts),
        partial(_answer, app, request, asked, package),
    ):
        raise overloaded("Too many requests for embeddings are waiting.")


def _computed(model: Any, texts: Sequence[str]) -> tuple[Array, int]:
    """Return the vectors, and the tokens of the texts as the language model counts them."""
    tokens = sum(len(model.talks.vocabulary.encode(text)) for text in texts)
    return np.asarray(model.embed(texts), dtype=np.float32), tokens


def _answer(
    app: "App",
    request: Request,
    asked: EmbeddingRequest,
    package: str,
    found: Any,
    error: Exception | None,
) -> None:
    refusal = None if error is None else _refused(error)
    if refusal is None and asked.dimensions not in (None, found[0].shape[1]):
        what = f"The vectors have {found[0].shape[1]} dimensions."
        refusal = bad_field(what, "dimensions", code="G782")
    if refusal is not None:
        app.metrics.refused(_ROUTE, refusal, trace=request.trace)
        request.refuse(refusal)
        return
    vectors, tokens = found
    listed = [
        {"object": "embedding", "index": i, "embedding": _written(vector, asked.encoding_format)}
        for i, vector in enumerate(vectors)
    ]
    body = {
        "object": "list",
        "data": listed,
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "genba": {"package": package},
    }
    app.answer(request, _ROUTE, 200, encode_json(body))


def _refused(error: Exception) -> Refusal:
    return error if isinstance(error, Refusal) else MISTAKE


def _written(vector: Array, form: str) -> Any:
    little = vector.astype("<f4", copy=False)
    return base64.b64encode(little.tobytes()).decode() if form == "base64" else little.tolist()
