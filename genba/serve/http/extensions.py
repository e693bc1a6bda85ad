"""Addresses of the protocol's extensions: model repository, configuration, statistics."""

import asyncio
import functools
from typing import TYPE_CHECKING

from genba.serve.http import repository, statistics
from genba.serve.http.request import Request
from genba.serve.http.responses import MISTAKE, Refusal, encode_json

if TYPE_CHECKING:
    from genba.serve.http.routes import App


def repository_index(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """POST /v2/repository/index."""
    ready = repository.read_index_request(bytes(request.body))
    told = repository.index(app.lines, ready=ready)
    app.answer(request, "repository", 200, encode_json(told))


def model_config(app: "App", request: Request, names: tuple[str, ...]) -> None:
    """GET /v2/models/{line}[/versions/{package}]/config."""
    version = names[1] if len(names) > 1 else None
    told = repository.config(app.line(names[0]), version, app.limits)
    app.answer(request, "metadata", 200, encode_json(told))


def model_statistics(app: "App", request: Request, names: tuple[str, ...]) -> None:
    """GET /v2/models[/{line}[/versions/{package}]]/stats."""
    if names:
        app.line(names[0])
    told = statistics.of_models(app.metrics, *names)
    app.answer(request, "statistics", 200, encode_json(told))


def load(app: "App", request: Request, names: tuple[str, ...]) -> None:
    """POST /v2/repository/models/{line}/load."""
    _keep_in_memory(app, request, names[0], loaded=True)


def unload(app: "App", request: Request, names: tuple[str, ...]) -> None:
    """POST /v2/repository/models/{line}/unload."""
    _keep_in_memory(app, request, names[0], loaded=False)


def _keep_in_memory(app: "App", request: Request, name: str, *, loaded: bool) -> None:
    line = app.line(name).name
    changed = repository.read_load_request(bytes(request.body))
    done = repository.keep_in_memory(app.memory, line, loaded=loaded, changed=changed)
    done.add_done_callback(functools.partial(_kept, app, request))


def _kept(app: "App", request: Request, done: "asyncio.Future[None]") -> None:
    error = done.exception()
    if error is None:
        app.answer(request, "repository", 200, b"{}")
    else:
        refusal = error if isinstance(error, Refusal) else MISTAKE
        app.answer(request, "repository", refusal.status, refusal.body())
