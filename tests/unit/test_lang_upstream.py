import json
from collections.abc import Iterator

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.core.talk import Ask
from genba.engines.openvino_talk import OpenVinoTalk
from genba.engines.talking import Collected, ask_and_wait
from genba.engines.upstream import Upstream
from genba.testing.talks import talks_checks
from genba.testing.tiny_talk import tiny_talk
from tests.unit.lang_upstream import upstream

NOT_HERE = {
    "offers settings and says its version",  # only people know where a server is
    "two models at once, each its own answers",  # there is one
}
EXACT = {"weights": "f32", "cache": "f32"}


@pytest.fixture(scope="module")
def engine() -> Iterator[OpenVinoTalk]:
    made = OpenVinoTalk(tiny_talk(), EXACT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(engine: OpenVinoTalk) -> Iterator[str]:
    with upstream(engine) as (url, _):
        yield url


TITLES = sorted(talks_checks("upstream", [{"url": "http://nowhere/v1", "model": "m"}]))


@pytest.mark.parametrize("title", sorted(set(TITLES) - NOT_HERE))
def test_a_server_that_says_tokens_keeps_the_contract(address: str, title: str) -> None:
    settings = {"url": address, "model": "tiny", "kind": "vllm", "context": 512}
    talks_checks("upstream", [settings])[title]()


def asked(url: str, **how: object) -> Collected:
    talks = Upstream(tiny_talk(), {"url": url, "model": "tiny", "timeout_s": 20.0})
    tokens = np.array(talks.vocabulary.prompt([{"role": "user", "content": "Close the valve"}]))
    try:
        return ask_and_wait(talks, Ask(**{"tokens": tokens, "most": 8, **how}), 30.0)  # type: ignore[arg-type]
    finally:
        talks.close()


def test_a_server_that_says_text_gives_the_same_text(engine: OpenVinoTalk) -> None:
    prompt = np.array(engine.vocabulary.prompt([{"role": "user", "content": "Close the valve"}]))
    alone = ask_and_wait(engine, Ask(tokens=prompt, most=8))
    with upstream(engine) as (url, seen):
        found = asked(url, seed=3)
    wanted = engine.vocabulary.decode(alone.tokens)
    assert engine.vocabulary.decode(found.tokens) == wanted
    assert found.finish == "length"
    assert seen[0]["seed"] == 3
    assert "return_token_ids" not in seen[0]


@pytest.mark.parametrize("how", [{"least": 2}, {"ignore_end": True}, {"end": (5,)}])
def test_what_a_server_is_not_known_to_do_is_refused(address: str, how: dict[str, object]) -> None:
    with pytest.raises(Problem) as caught:
        asked(address, **how)
    assert caught.value.code == "G641"


@pytest.mark.parametrize(
    ("broken", "code"), [("refuses", "G645"), ("stops", "G645"), ("no schema", "G641")]
)
def test_a_server_that_fails_is_an_error_of_the_answer(
    engine: OpenVinoTalk, broken: str, code: str
) -> None:
    schema = json.dumps({"type": "object"}) if broken == "no schema" else None
    with upstream(engine, broken) as (url, _), pytest.raises(Problem) as caught:
        asked(url, schema=schema, most=80)
    assert caught.value.code == code
    assert url not in caught.value.why


def test_a_server_that_tells_nothing_of_given_tokens_is_not_believed(engine: OpenVinoTalk) -> None:
    with upstream(engine, "no echo") as (url, _):
        talks = Upstream(tiny_talk(), {"url": url, "model": "tiny"})
        with pytest.raises(Problem) as caught:
            talks.score(np.array([5, 6, 7]))
        talks.close()
    assert caught.value.code == "G641"


def test_nobody_there_is_an_error_and_the_key_comes_from_the_environment(
    engine: OpenVinoTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_KEY", "secret")
    with upstream(engine) as (url, seen):
        talks = Upstream(tiny_talk(), {"url": url, "model": "tiny", "key_env": "TINY_KEY"})
        talks.score(np.array([5, 6, 7]))
        talks.close()
    assert seen[0]["key"] == "Bearer secret"
    assert seen[0]["path"] == "/v1/completions"
    with pytest.raises(Problem) as caught:
        asked(url)
    assert caught.value.code == "G645"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "nowhere", "ftp://a/v1"])
def test_only_the_web_is_asked(url: str) -> None:
    with pytest.raises(Problem) as caught:
        Upstream(tiny_talk(), {"url": url, "model": "m"})
    assert caught.value.code == "G103"
