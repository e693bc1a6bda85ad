"""What the protocol calls a model repository: which packages of which lines are there, and how."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from genba.serve.http.responses import Refusal
from genba.serve.lanes.lines import LineService
from genba.serve.limits import Limits
from genba.serve.oip.tensors import DTYPES, bad

_READY: Final = "READY"
_UNAVAILABLE: Final = "UNAVAILABLE"
_TEXT: Final = "TYPE_STRING"
#: What clients send with every request to unload; there are no dependents here.
HARMLESS: Final = frozenset({"unload_dependents"})
_PRIORITIES: Final = 2  # somebody waits for it, or nobody does

#: Takes a line, whether its packages shall be in memory, and what to call with those that failed.
AskForMemory = Callable[[str, bool, Callable[[Mapping[str, str]], None]], None]


class IndexRequest(msgspec.Struct, frozen=True):
    """What may be said when asking for the index."""

    ready: bool = False


_index_request = msgspec.json.Decoder(IndexRequest)


def read_index_request(body: bytes) -> bool:
    """Return whether only packages that answer are asked for.

    Raises:
        Refusal: 400 for a body that is not what the protocol says.

    Example:
        >>> read_index_request(b""), read_index_request(b'{"ready": true}')
        (False, True)
    """
    if not body:
        return False
    try:
        return _index_request.decode(body).ready
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise bad(f"The request is not one for the index: {error}.") from error


def index(lines: Mapping[str, LineService], *, ready: bool = False) -> list[dict[str, str]]:
    """Return the packages of all lines.

    Args:
        lines: In service.
        ready: Leave out what does not answer.
    """
    entries = [entry for name in sorted(lines) for entry in _entries(lines[name])]
    return [entry for entry in entries if entry["state"] == _READY or not ready]


def _entries(line: LineService) -> Iterator[dict[str, str]]:
    asleep = line.asleep
    for package, role in line.roles().items():
        if package not in asleep and package not in line.failed:
            yield _entry(line.name, package, _READY, role)
    for package in sorted(asleep):
        yield _entry(line.name, package, _UNAVAILABLE, "not in memory")
    for package, why in sorted(line.failed.items()):
        yield _entry(line.name, package, _UNAVAILABLE, why)


def _entry(line: str, package: str, state: str, reason: str) -> dict[str, str]:
    return {"name": line, "version": package, "state": state, "reason": reason}


def config(line: LineService, version: str | None, limits: Limits) -> dict[str, Any]:
    """Return what the protocol calls the configuration of a model.

    Dimensions are those of one row, as the protocol has them for models that take batches; the
    first dimension of every tensor is the number of rows.

    Raises:
        Refusal: 404 for a version that does not answer.
    """
    told = line.metadata(version)
    images = any(tensor["parameters"]["role"] == "image" for tensor in told["inputs"])
    return {
        "name": line.name,
        "platform": told["platform"],
        "backend": told["platform"].removeprefix("genba_"),
        "max_batch_size": limits.request_images if images else limits.request_rows,
        "input": [_configured(tensor) for tensor in told["inputs"]],
        "output": [_configured(tensor) for tensor in told["outputs"]],
        "dynamic_batching": {
            "max_queue_delay_microseconds": 0,
            "priority_levels": _PRIORITIES,
            "default_priority_level": 1,
        },
        "parameters": {},
        "model_transaction_policy": {"decoupled": False},
    }


def _configured(tensor: Mapping[str, Any]) -> dict[str, Any]:
    datatype = tensor["datatype"]
    made = {
        "name": tensor["name"],
        "data_type": f"TYPE_{datatype}" if datatype in DTYPES else _TEXT,
        "dims": list(tensor["shape"][1:]),
    }
    return {**made, "optional": True} if tensor["parameters"].get("optional") else made


class LoadRequest(msgspec.Struct, frozen=True):
    """What may be said when loading or unloading a model."""

    parameters: dict[str, msgspec.Raw] = {}


_load_request = msgspec.json.Decoder(LoadRequest)


def read_load_request(body: bytes) -> bool:
    """Return whether another configuration or files are sent along.

    Raises:
        Refusal: 400 for a body that is not what the protocol says.

    Example:
        >>> read_load_request(b""), read_load_request(b'{"parameters": {"config": "{}"}}')
        (False, True)
    """
    try:
        return bool(body) and bool(_load_request.decode(body).parameters.keys() - HARMLESS)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise bad(f"The request is not one to load or unload a model: {error}.") from error


def keep_in_memory(
    ask: AskForMemory, line: str, *, loaded: bool, changed: bool
) -> "asyncio.Future[None]":
    """Put the packages of a line into memory, or out of it until further notice.

    Args:
        ask: Whoever loads packages.
        line: Name of the line.
        loaded: Whether they shall be in memory.
        changed: Whether the request wants another configuration, or brings files.

    Returns:
        Done when they are; with a Refusal, 409, when one of them cannot be loaded.

    Raises:
        Refusal: 409 when the request wants to change what is loaded: packages are made by lines.
    """
    if changed:
        what = "A package is loaded as its line made it: send neither configuration nor files."
        raise Refusal(409, "G746", what)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(failed: Mapping[str, str]) -> None:
        loop.call_soon_threadsafe(_settle, done, line, dict(failed))

    ask(line, loaded, tell)
    return done


def _settle(done: "asyncio.Future[None]", line: str, failed: Mapping[str, str]) -> None:
    if done.done():  # the client is gone
        return
    if not failed:
        done.set_result(None)
        return
    package, why = next(iter(failed.items()))
    done.set_exception(
        Refusal(409, "G746", f"Package {package} of line {line} is not loaded: {why}")
    )
