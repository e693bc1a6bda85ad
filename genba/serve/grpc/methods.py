"""The methods that answer at once: what the server is, what its lines are and how they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from google.protobuf import json_format

from genba import __version__
from genba.serve.access.callers import ANYONE, DESCRIBE
from genba.serve.grpc.messages import message
from genba.serve.http import repository, statistics
from genba.serve.http.responses import Refusal, encode_json
from genba.serve.http.routes import unknown_line
from genba.serve.lanes.lines import LineService
from genba.serve.limits import Limits
from genba.serve.oip import answers
from genba.serve.watch.metrics import Metrics


class Host(Protocol):
    """What the gRPC port needs of the server that it belongs to."""

    limits: Limits
    lines: Mapping[str, LineService]
    metrics: Metrics
    draining: bool
    held_bytes: int
    memory: repository.AskForMemory

    @property
    def ready(self) -> bool:
        """Whether every line can answer."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method with its messages.

    Attributes:
        scope: What a key must allow.
        route: Its name in the metrics.
        request: Class of what it takes.
        answer: Makes an answer of a request, or what there is to wait for. Raises Refusal.
        line: Field of the request with the name of the line it is about; empty for none.
    """

    scope: str
    route: str
    request: Any
    answer: Callable[[Host, Any], Any]
    line: str = ""


def find_line(host: Host, name: str) -> LineService:
    """Return a line.

    Raises:
        Refusal: 404 when there is none of that name.
    """
    line = host.lines.get(name)
    if line is None:
        raise unknown_line(name, sorted(host.lines))
    return line


def _filled(name: str, told: Any) -> Any:
    """Return a message with the fields that it has of an answer over HTTP."""
    plain = msgspec.json.decode(encode_json(told))
    return json_format.ParseDict(plain, message(name)(), ignore_unknown_fields=True)


def _server_live(_: Host, __: Any) -> Any:
    return message("ServerLiveResponse")(live=True)


def _server_ready(host: Host, _: Any) -> Any:
    return message("ServerReadyResponse")(ready=host.ready and not host.draining)


def _server_metadata(_: Host, __: Any) -> Any:
    return _filled("ServerMetadataResponse", answers.server_metadata(__version__))


def _model_ready(host: Host, sent: Any) -> Any:
    line = find_line(host, sent.name)
    if sent.version:
        line.metadata(sent.version)
    return message("ModelReadyResponse")(ready=line.ready)


def _model_metadata(host: Host, sent: Any) -> Any:
    told = find_line(host, sent.name).metadata(sent.version or None)
    return _filled("ModelMetadataResponse", told)


def _model_config(host: Host, sent: Any) -> Any:
    told = repository.config(find_line(host, sent.name), sent.version or None, host.limits)
    return _filled("ModelConfigResponse", {"config": told})


def _model_statistics(host: Host, sent: Any) -> Any:
    if sent.name:
        find_line(host, sent.name)
    told = statistics.of_models(host.metrics, sent.name, sent.version)
    return _filled("ModelStatisticsResponse", told)


def _repository_index(host: Host, sent: Any) -> Any:
    told = repository.index(host.lines, ready=sent.ready)
    return _filled("RepositoryIndexResponse", {"models": told})


async def _load(host: Host, sent: Any) -> Any:
    await _keep_in_memory(host, sent, loaded=True)
    return message("RepositoryModelLoadResponse")()


async def _unload(host: Host, sent: Any) -> Any:
    await _keep_in_memory(host, sent, loaded=False)
    return message("RepositoryModelUnloadResponse")()


async def _keep_in_memory(host: Host, sent: Any, *, loaded: bool) -> None:
    line = find_line(host, sent.model_name).name
    changed = bool(sent.parameters.keys() - repository.HARMLESS)
    await repository.keep_in_memory(host.memory, line, loaded=loaded, changed=changed)


def _method(
    name: str, scope: str, route: str, answer: Callable[[Host, Any], Any], line: str = ""
) -> tuple[str, Method]:
    request = message(f"{name}Request")
    return name, Method(scope=scope, route=route, request=request, answer=answer, line=line)


#: Every method that is answered at once, by name; whatever is not in here is refused.
METHODS: Final[Mapping[str, Method]] = dict(
    (
        _method("ServerLive", ANYONE, "health", _server_live),
        _method("ServerReady", DESCRIBE, "health", _server_ready),
        _method("ServerMetadata", DESCRIBE, "metadata", _server_metadata),
        _method("ModelReady", DESCRIBE, "health", _model_ready, "name"),
        _method("ModelMetadata", DESCRIBE, "metadata", _model_metadata, "name"),
        _method("ModelConfig", DESCRIBE, "metadata", _model_config, "name"),
        _method("ModelStatistics", "read", "statistics", _model_statistics, "name"),
        _method("RepositoryIndex", "read", "repository", _repository_index),
        _method("RepositoryModelLoad", "deploy", "repository", _load, "model_name"),
        _method("RepositoryModelUnload", "deploy", "repository", _unload, "model_name"),
    )
)

_WORDS: Final = {
    "SharedMemory": "Shared memory is not offered here; send tensors in the request.",
    "TraceSetting": "Traces are set when the server starts, not by a client.",
    "LogSettings": "Logs are set when the server starts, not by a client.",
}


def unknown_method(name: str) -> Refusal:
    """Refuse a method that there is not, and say why where that is known.

    Example:
        >>> unknown_method("CudaSharedMemoryStatus").what
        'Shared memory is not offered here; send tensors in the request.'
    """
    for word, what in _WORDS.items():
        if word in name:
            return Refusal(501, "G745", what)
    return Refusal(501, "G745", f"There is no method {name[:80]!r} here.")
