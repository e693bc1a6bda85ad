"""A desk to ask at: a server whose language model says what it is told to, and an openai client."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.store.captures import find_prediction
from genba.store.home import Store
from genba.testing.serving import place, serve_here, until
from genba.testing.speller import Script
from genba.testing.talking import talk_package

LINE = "desk"
ANSWER = "Twelve metres, é!"
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
SCRIPT = Script(
    answers={"How high?": ANSWER, "Add.": f"Well. {CALL}", "Bare.": '{"name": "add"}'},
    fails="Fail.",
    hangs="Hang.",
)
ASKED: Any = [{"role": "user", "content": "How high?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
            },
        },
    }
]


def said(text: Any) -> Any:
    return [{"role": "user", "content": text}]


def _close(clients: list[openai.OpenAI]) -> None:
    for client in clients:
        client.close()


class Desk:
    """A client, and the home that it is answered from."""

    def __init__(self, home: Path, package: str, port: int) -> None:
        self.home, self.package = home, package
        self.url = f"http://127.0.0.1:{port}"
        self._clients: list[openai.OpenAI] = []
        weakref.finalize(self, _close, self._clients)
        self.api = self.with_key("none")

    def with_key(self, key: str) -> Any:
        self._clients.append(
            openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20)
        )
        return self._clients[-1]

    def ask(self, text: Any = "How high?", **more: Any) -> Any:
        return self.api.chat.completions.create(model=LINE, messages=said(text), **more)

    def refused(self, kind: type[openai.APIStatusError], **more: Any) -> Any:
        with pytest.raises(kind) as caught:
            self.ask(**more)
        return caught.value

    def captured(self, prediction: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def there() -> bool:
            with Store.open(self.home) as store:
                kept = find_prediction(store, prediction)
                if kept is not None:
                    found.append(kept[1])
            return bool(found)

        until(there)
        return found[0]


@contextmanager
def home_of(path: Path, script: Script = SCRIPT, **more: Any) -> Iterator[tuple[Path, str, Store]]:
    home = path / "home"
    with Store.open(home, create=True) as store:
        package = talk_package(store, LINE, script, **more)
        place(store, LINE, "promote", package)
        yield home, package, store


def served(path: Path, script: Callable[[Desk], None], **more: Any) -> None:
    settings = {"limits": more.pop("limits", Limits())}
    with home_of(path, **more) as (home, package, _):
        pass
    serve_here(home, lambda client: script(Desk(home, package, port_of(client))), **settings)


def port_of(client: Client) -> int:
    return int(client.url.rpartition(":")[2])
