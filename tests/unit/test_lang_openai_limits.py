"""The unmodified `openai` client: what is refused, who leaves, and which package answers whom."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest

from genba.learn.encoder import load_encoder
from genba.serve.access.callers import Access
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.store.home import Store
from genba.store.keys import Grant, add_key, all_keys
from genba.testing.serving import place, serve_here, small_package, until
from genba.testing.speller import Script
from genba.testing.talking import talk_package
from genba.ui.cli.app import run_command
from tests.unit.lang_desk import ANSWER, ASKED, LINE, TOOLS, Desk, home_of, port_of, said, served


def test_what_is_refused(tmp_path: Path) -> None:
    served(tmp_path, _refused, limits=Limits(talk_bytes=10_000))


def _refused(desk: Desk) -> None:
    bad = openai.BadRequestError
    for more, code, param in (
        ({"presence_penalty": 1.0}, "G782", "presence_penalty"),
        ({"extra_body": {"max_token": 3}}, "G782", "max_token"),
        ({"temperature": 9.0}, "G704", "temperature"),
        ({"n": 0}, "G704", "n"),
        ({"top_logprobs": 2}, "G704", "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "G704", "response_format"),
        (
            {"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}},
            "G704",
            "response_format",
        ),
        ({"text": [{"type": "image_url", "image_url": {"url": "x"}}]}, "G782", "messages[0]"),
        ({"max_tokens": 5_000}, "G640", None),
        ({"top_p": 0.0}, "G704", None),
    ):
        error = desk.refused(bad, **more)
        assert (error.code, error.param) == (code, param), more
    assert "did you mean max_tokens?" in desk.refused(bad, extra_body={"max_token": 3}).message
    assert desk.ask(stop="").choices[0].message.content == ANSWER
    quiet = {
        "presence_penalty": 0.0,
        "logit_bias": {},
        "user": "me",
        "store": True,
        "best_of": None,
    }
    assert desk.ask(extra_body=quiet).choices[0].message.content == ANSWER
    assert desk.refused(openai.InternalServerError, text="Fail.").code == "G707"
    post = httpx2.post
    for body, status in (
        (b"{", 400),
        (b"[]", 400),
        (b'{"model": "desk"}', 400),
        (b"x" * 20_000, 413),
    ):
        told = post(f"{desk.url}/v1/chat/completions", content=body)
        assert (told.status_code, told.json()["error"]["code"][0]) == (status, "G")
    assert told.json()["error"]["type"] == "invalid_request_error"
    with socket.create_connection(("127.0.0.1", int(desk.url.rpartition(":")[2]))) as old:
        streamed = json.dumps({"model": LINE, "messages": ASKED, "stream": True}).encode()
        head = "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(streamed)}"
        old.sendall(head.encode() + b"\r\n\r\n" + streamed)
        assert b"needs HTTP/1.1" in old.makefile("rb").read()
    missing = post(f"{desk.url}/v1/chat/completions", json={"model": LINE}).json()["error"]
    assert missing["param"] == "messages"
    for name in ("task", "desk@ffffff", f"desk@{desk.package[:3]}"):
        with pytest.raises(openai.NotFoundError) as caught:
            desk.api.chat.completions.create(model=name, messages=ASKED)
        assert (caught.value.code, caught.value.type) == ("G703", "not_found_error")
    go_on, answer = desk.api.completions.create, desk.api.responses.create
    calls: list[Callable[[], Any]] = [
        lambda: go_on(model=LINE, prompt=[]),
        lambda: go_on(model=LINE, prompt=["a", 3]),
        lambda: go_on(model=LINE, prompt=[999]),
        lambda: go_on(model=LINE, prompt="a", echo=True, stream=True),
        lambda: answer(model=LINE, input="?", previous_response_id="resp_1"),
        lambda: answer(model=LINE, input=[{"type": "reasoning", "id": "1"}]),
        lambda: answer(
            model=LINE, input="?", text={"format": {"type": "json_schema", "name": "x"}}
        ),
        lambda: desk.api.embeddings.create(model=LINE, input="a"),
    ]
    for call in calls:
        with pytest.raises(bad):
            call()
    assert httpx2.get(f"{desk.url}/v1/chat/completions").json()["error"]["code"] == "G708"
    assert (
        httpx2.get(f"{desk.url}/v1/nothing")
        .json()["error"]["message"]
        .startswith("There is nothing")
    )


def test_who_leaves_is_not_written_to(tmp_path: Path) -> None:
    served(tmp_path, _leaves)


def _leaves(desk: Desk) -> None:
    def stats() -> Any:
        with Client(desk.url) as client:
            return client.line(LINE)["versions"][desk.package]["language"]

    slow = openai.OpenAI(base_url=f"{desk.url}/v1", api_key="none", max_retries=0, timeout=0.2)
    with pytest.raises(openai.APITimeoutError):
        slow.chat.completions.create(model=LINE, messages=said("Hang."))
    slow.close()
    until(lambda: stats()["cancelled"] == 1)
    with httpx2.stream(
        "POST",
        f"{desk.url}/v1/chat/completions",
        json={
            "model": LINE,
            "messages": ASKED,
            "stream": True,
            "ignore_eos": True,
            "max_tokens": 3_000,
        },
    ) as answer:
        next(answer.iter_lines())
    until(lambda: stats()["running"] == 0)
    late = httpx2.post(
        f"{desk.url}/v1/chat/completions",
        json={"model": LINE, "messages": said("Hang.")},
        headers={"X-Genba-Deadline-Ms": "100"},
    )
    assert (late.status_code, late.json()["error"]["code"]) == (504, "G706")


def test_models_keys_and_packages(tmp_path: Path) -> None:
    other = Script(answers={"How high?": "Thirteen."})
    with home_of(tmp_path, files={"encoder.onnx": load_encoder("letters")}) as (
        home,
        package,
        store,
    ):
        canary = talk_package(store, LINE, other)
        place(store, LINE, "canary", canary, share=0.5)
        pump = small_package(store, "pump")
        place(store, "pump", "promote", pump)
        made = {
            name: add_key(store.ledger, name, Grant(scopes=scopes, lines=lines), by="me", now_ms=1)[
                1
            ]
            for name, scopes, lines in (
                ("all", ("infer", "read"), ()),
                ("pumps", ("infer",), ("pump",)),
                ("reads", ("read",), ()),
            )
        }

    def script(client: Client) -> None:
        desk = Desk(home, package, port_of(client))
        with pytest.raises(openai.AuthenticationError) as caught:
            desk.ask()
        assert caught.value.code == "G709"
        for name, code in (("pumps", "G759"), ("reads", "G758")):
            with pytest.raises(openai.PermissionDeniedError) as denied:
                desk.with_key(made[name]).chat.completions.create(model=LINE, messages=ASKED)
            assert denied.value.code == code
        assert list(desk.with_key(made["pumps"]).models.list()) == []
        api = desk.api = desk.with_key(made["all"])
        names = [m.id for m in api.models.list()]
        assert names == [LINE, f"{LINE}@{package}", f"{LINE}@{canary}"]
        assert api.models.retrieve(LINE).genba["context"] == 4_096
        assert api.models.retrieve(f"{LINE}@{canary[:12]}").genba["role"] == "canary"
        with pytest.raises(openai.BadRequestError) as pumped:
            api.models.retrieve("pump")
        assert pumped.value.code == "G780"
        with pytest.raises(openai.BadRequestError) as pumped:
            api.chat.completions.create(model="pump", messages=ASKED)
        assert pumped.value.code == "G780"
        by = {desk.ask().genba["role"]: desk.ask().choices[0].message.content for _ in range(6)}
        assert set(by) == {"stable", "canary"}
        chosen = api.chat.completions.create(model=f"{LINE}@{canary[:8]}", messages=ASKED)
        assert (chosen.choices[0].message.content, chosen.genba["role"]) == ("Thirteen.", "canary")
        _each_its_own(api, {f"{LINE}@{package}": ANSWER, f"{LINE}@{canary}": "Thirteen."})
        _embeddings(api)

    serve_here(home, script)


def _each_its_own(api: Any, answers: dict[str, str]) -> None:
    """Of many requests at once to several packages, none is answered by the wrong one."""
    wrong: list[str] = []

    def ask(model: str) -> None:
        for _ in range(5):
            told = api.chat.completions.create(model=model, messages=ASKED)
            if told.choices[0].message.content != answers[model]:
                wrong.append(model)

    threads = [threading.Thread(target=ask, args=(model,)) for model in answers for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _embeddings(api: Any) -> None:
    two = api.embeddings.create(model=LINE, input=["one", "two"])  # base64, as the client asks
    one = api.embeddings.create(model=LINE, input="one", encoding_format="float")
    assert np.allclose(two.data[0].embedding, one.data[0].embedding)
    assert len(one.data[0].embedding) == 64
    assert one.usage.prompt_tokens == 3
    with pytest.raises(openai.BadRequestError) as caught:
        api.embeddings.create(model=LINE, input="one", dimensions=10)
    assert caught.value.param == "dimensions"


def test_a_key_says_which_documents_may_answer(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home", create=True) as store:
        grant = Grant(scopes=("infer",), access=("staff", "board"))
        key, token = add_key(store.ledger, "me", grant, by="me", now_ms=1)
        assert all_keys(store.ledger)[key.id].access == {"staff", "board"}
        access = Access()
        access.update(all_keys(store.ledger))
    sent = {b"host": b"localhost", b"authorization": b"Bearer " + token.encode()}
    assert access.check(sent).access == {"staff", "board"}
    assert Access().check({b"host": b"localhost"}).access == frozenset()
    shown = run_command(["keys", "--json", "--home", str(tmp_path / "home")])
    assert shown == 0
