"""The unmodified `openai` client: conversations, streams, tools, texts, and the same by OIP."""

import json
import threading
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest

from genba.serve.client import Client
from genba.store.captures import read_capture
from genba.store.home import Store
from tests.unit.lang_desk import ANSWER, ASKED, LINE, TOOLS, Desk, served


def test_what_the_client_asks_is_answered(tmp_path: Path) -> None:
    """One server for all of it, since starting one takes longer than asking."""

    def script(desk: Desk) -> None:
        for part in (_conversations, _streams, _tools, _texts, _protocol, _many):
            part(desk)

    served(tmp_path, script)


def _conversations(desk: Desk) -> None:
    whole = desk.ask()
    choice = whole.choices[0]
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
    assert whole.usage.completion_tokens == len(ANSWER.encode()) + 1
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.genba["package"] == desk.package
    assert (whole.genba["role"], whole.genba["by"], whole.genba["sources"]) == (
        "stable",
        "model",
        [],
    )
    assert desk.ask(max_tokens=3).choices[0].finish_reason == "length"
    assert desk.ask(stop=["metres"]).choices[0].message.content == "Twelve "
    assert desk.ask(stop=" ").choices[0].message.content == "Twelve"
    parts = [{"type": "text", "text": "How "}, {"type": "text", "text": "high?"}]
    assert desk.ask(parts).choices[0].message.content == ANSWER
    several = desk.ask(n=3, temperature=1, seed=7).choices
    assert [c.index for c in several] == [0, 1, 2]
    assert len({c.message.content for c in several}) == 3
    assert desk.ask(temperature=1, seed=8).choices[0].message.content == several[1].message.content
    logs = desk.ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert (logs[0].token, logs[0].bytes, logs[0].logprob) == ("T", [84], -0.25)
    assert [top.token for top in logs[0].top_logprobs] == ["T", "U"]
    shaped = desk.ask(
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "x",
                "schema": {"type": "object", "properties": {"b": {"type": "boolean"}}},
            },
        }
    )
    assert json.loads(shaped.choices[0].message.content) == {"b": True}
    assert desk.ask(response_format={"type": "json_object"}).choices[0].message.content == "{}"
    row = desk.captured(whole.genba["prediction"])
    assert json.loads(row["messages"]) == ASKED
    assert (row["answer"].decode(), row["package"], row["status"]) == (ANSWER, desk.package, "ok")
    assert row["max_tokens"] == 128.0
    assert row["tokens"] == [whole.usage.prompt_tokens, whole.usage.completion_tokens]


def _streams(desk: Desk) -> None:
    chunks = list(desk.ask(stream=True, stream_options={"include_usage": True}, logprobs=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    last = [c for c in chunks if c.choices][-1]
    assert (last.choices[0].finish_reason, last.genba["by"]) == ("stop", "model")
    assert chunks[0].genba["prediction"] == last.genba["prediction"]
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 19)
    tokens = [
        t
        for c in chunks
        if c.choices and c.choices[0].logprobs
        for t in c.choices[0].logprobs.content
    ]
    assert bytes(b for t in tokens for b in t.bytes).decode() == ANSWER
    assert desk.captured(last.genba["prediction"])["answer"].decode() == ANSWER
    many = list(desk.ask(stream=True, n=2))
    assert [
        sum(len(c.choices[0].delta.content or "") for c in many if c.choices[0].index == i)
        for i in (0, 1)
    ] == [17, 17]
    with pytest.raises(openai.APIError) as caught:
        list(desk.ask(stream=True, tools=TOOLS, tool_choice="required", max_tokens=2))
    assert caught.value.code == "G781"
    with pytest.raises(openai.APIStatusError) as refused:
        list(desk.ask("Fail.", stream=True))
    assert refused.value.code == "G707"
    made = list(desk.ask("Add.", stream=True, tools=TOOLS))
    assert "".join(c.choices[0].delta.content or "" for c in made) == "Well. "
    (call,) = [c.choices[0].delta.tool_calls[0] for c in made if c.choices[0].delta.tool_calls]
    assert (call.function.name, call.function.arguments) == ("add", '{"a": 1}')
    assert made[-1].choices[0].finish_reason == "tool_calls"
    with desk.api.responses.stream(model=LINE, input="How high?") as events:
        kinds = [event.type for event in events]
        assert events.get_final_response().output_text == ANSWER
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") >= 1
    parts = list(desk.api.completions.create(model=LINE, prompt="ab", stream=True, logprobs=1))
    assert "".join(c.choices[0].text for c in parts) == "ab"


def _tools(desk: Desk) -> None:
    forced = desk.ask(tools=TOOLS, tool_choice="required").choices[0]
    (call,) = forced.message.tool_calls
    assert (forced.finish_reason, forced.message.content) == ("tool_calls", None)
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 7})
    named = desk.ask(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "add"}})
    assert named.choices[0].message.tool_calls[0].function.name == "add"
    chosen = desk.ask("Add.", tools=TOOLS).choices[0]
    assert (chosen.message.content, chosen.finish_reason) == ("Well. ", "tool_calls")
    assert (
        desk.ask("Bare.", tools=TOOLS).choices[0].message.tool_calls[0].function.arguments == "{}"
    )
    assert desk.ask(tools=TOOLS).choices[0].message.content == ANSWER
    assert desk.ask("Add.", tools=TOOLS, tool_choice="none").choices[0].finish_reason == "stop"
    error = desk.refused(
        openai.UnprocessableEntityError, tools=TOOLS, tool_choice="required", max_tokens=3
    )
    assert error.code == "G781"
    for more in (
        {"tool_choice": "required"},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "sub"}}},
    ):
        assert desk.refused(openai.BadRequestError, **more).param == "tool_choice"
    history = [
        *ASKED,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 1}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ]
    told = desk.api.chat.completions.create(model=LINE, messages=history, tools=TOOLS)
    assert told.choices[0].message.content == "<tool_response>\n2\n</tool_response>"
    newer = [{"type": "function", **TOOLS[0]["function"]}]
    answer = desk.api.responses.create(
        model=LINE, input="How high?", tools=newer, tool_choice="required"
    )
    assert (answer.output[0].type, answer.output[0].arguments) == ("function_call", '{"a": 7}')
    again = [
        {"role": "user", "content": "How high?"},
        answer.output[0].model_dump(),
        {"type": "function_call_output", "call_id": answer.output[0].call_id, "output": "8"},
    ]
    assert "8" in desk.api.responses.create(model=LINE, input=again).output_text


def _texts(desk: Desk) -> None:
    go_on = desk.api.completions.create
    assert go_on(model=LINE, prompt="abc").choices[0].text == "abc"
    tokens = go_on(model=LINE, prompt=[[97, 98], [99]], n=2, max_tokens=2)
    assert [c.text for c in tokens.choices] == ["ab", "ab", "c", "c"]
    assert tokens.usage.prompt_tokens == 3
    assert go_on(model=LINE, prompt=[97, 98], max_tokens=1).choices[0].text == "a"
    whole = go_on(model=LINE, prompt="ab", echo=True, logprobs=2, max_tokens=1)
    logs = whole.choices[0].logprobs
    assert (whole.choices[0].text, logs.tokens, logs.text_offset) == (
        "aba",
        ["a", "b", "a"],
        [0, 1, 2],
    )
    assert (logs.token_logprobs, whole.genba["prediction"]) == ([None, -0.25, -0.25], None)
    assert (logs.top_logprobs[0], list(logs.top_logprobs[1])) == (None, ["b", "c"])
    only = go_on(model=LINE, prompt="é", echo=True, logprobs=0, max_tokens=0).choices[0]
    assert (only.text, only.logprobs.top_logprobs) == ("é", None)
    plain = go_on(model=LINE, prompt=["x", "yz"], echo=True).choices
    assert [c.text for c in plain] == ["xx", "yzyz"]
    assert (
        desk.captured(go_on(model=LINE, prompt="seen").genba["prediction"])["messages"] == b"seen"
    )
    _tokenizes(desk.url)
    answer = desk.api.responses.create(
        model=LINE, input=ASKED, instructions="Be short.", max_output_tokens=3
    )
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == 3
    shaped = desk.api.responses.create(
        model=LINE,
        input="?",
        text={"format": {"type": "json_schema", "name": "x", "schema": {"const": 5}}},
    )
    assert shaped.output_text == "5"


def _tokenizes(url: str) -> None:
    def post(path: str, **body: Any) -> Any:
        return httpx2.post(f"{url}/{path}", json=body).json()

    info = httpx2.get(f"{url}/tokenizer_info").json()
    assert (info["eos_token"], info["bos_token"], info["max_model_len"]) == ("<|end|>", None, 4_096)
    made = post("tokenize", prompt="a<|end|>", add_special_tokens=True, return_token_strs=True)
    assert (made["tokens"], made["token_strs"], made["count"]) == ([97, 257], ["a", "<|end|>"], 2)
    assert post("tokenize", model=LINE, messages=ASKED)["count"] == 27
    assert post("detokenize", tokens=[97, 257])["prompt"] == "a<|end|>"
    for body in ({}, {"prompt": "a", "messages": ASKED}, {"prompt": "a", "model": "dusk"}):
        assert post("tokenize", **body)["code"] in ("G704", "G703")
    image = [{"role": "user", "content": [{"type": "image_url"}]}]
    for body in ({"messages": image}, {"prompt": "a", "add_generation_prompt": False}):
        assert post("tokenize", **body)["code"] == "G782"


def _protocol(desk: Desk) -> None:
    with Client(desk.url) as client:
        messages = np.array([b"How high?", b"Hello"], dtype=object)
        answer = client.infer(LINE, {"messages": messages})
        assert answer.outputs["answer"].tolist() == [ANSWER.encode(), b"Hello"]
        assert answer.outputs["tokens"][1].tolist()[1] == 6
        given = np.array([b"x"], dtype=object)
        scored = client.infer(LINE, {"messages": messages[:1], "given": given})
        assert scored.outputs["log_probability"].tolist() != [-0.25]
        assert desk.captured(scored.predictions[0])["given"] == b"x"
        assert client.metadata(LINE)["inputs"][1]["parameters"]["optional"]
        said = client.metrics()
        assert 'genba_tokens_total{kind="answer",line="desk"' in said
        assert 'genba_first_token_seconds_count{line="desk"' in said
    with Store.open(desk.home) as store:
        (record,) = store.ledger.find("capture", line=LINE, limit=1)
        assert "latency_us" in read_capture(store, record).column_names


def _many(desk: Desk) -> None:
    """Of many requests at once, each gets its own answer."""
    found: dict[str, str] = {}

    def one(number: int) -> None:
        text = f"{number} " * 20
        parts = desk.ask(text, stream=bool(number % 2))
        if number % 2:
            found[text] = "".join(c.choices[0].delta.content or "" for c in parts)
        else:
            found[text] = parts.choices[0].message.content

    threads = [threading.Thread(target=one, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"{n} " * 20: f"{n} " * 20 for n in range(24)}
