import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.core.talk import Ask, Piece
from genba.edge.gguf import read_gguf
from genba.engines import openvino_talk
from genba.engines.llama_cpp import LlamaCpp
from genba.engines.openvino_talk import OpenVinoTalk
from genba.engines.talk_choice import choose, generator, likeliest
from genba.engines.talk_graph import PAGE, sizes_of
from genba.engines.talk_pages import Pages
from genba.engines.talking import Collected, answer_texts, ask_and_wait
from genba.learn.language.export import Typed, entry, gguf_bytes, pack
from genba.testing.tiny_reference import tiny_reference
from genba.testing.tiny_talk import CONTEXT, tiny_talk, tiny_weights

EXACT = {"weights": "f32", "cache": "f32"}


@pytest.fixture
def opened() -> Iterator[Callable[..., OpenVinoTalk]]:
    engines: list[OpenVinoTalk] = []

    def make(**how: Any) -> OpenVinoTalk:
        engines.append(OpenVinoTalk(tiny_talk(), {**EXACT, **how}))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def changed(file: bytes, **entries: Any) -> bytes:
    found = read_gguf(file)
    keys = {key.replace("__", "."): value for key, value in entries.items()}
    kept = [raw for key, raw in found.entries.items() if key not in keys]
    tensors = [pack(n, found.array(n), "f32") for n in found.tensors]
    return gguf_bytes([*kept, *(entry(k, v) for k, v in keys.items())], tensors)


def tokens(seed: int, count: int) -> np.ndarray:
    made: np.ndarray = np.random.default_rng(seed).integers(3, 384, size=count)
    return made


def ask(seed: int = 0, count: int = 20, most: int = 20, **how: Any) -> Ask:
    return Ask(tokens=tokens(seed, count), most=most, **how)


def test_guesses_change_no_answer(opened: Callable[..., OpenVinoTalk]) -> None:
    plain, guessing = opened(guesses=0), opened(guesses=4)
    again = np.tile(tokens(1, 12), 6)  # so that guesses have something to go by
    for how in ({}, {"temperature": 1.0, "seed": 5}, {"likeliest": 2}):
        wanted = ask_and_wait(plain, Ask(tokens=again, most=120, **how))
        found = ask_and_wait(guessing, Ask(tokens=again, most=120, **how))
        assert found.tokens == wanted.tokens
        assert found.log_probability == pytest.approx(wanted.log_probability, abs=1e-3)
        assert [len(a) for a in found.likeliest] == [len(a) for a in wanted.likeliest]
    assert plain.stats()["guessed"] == 0


def test_a_text_that_is_foretold_needs_fewer_steps(opened: Callable[..., OpenVinoTalk]) -> None:
    text = json.dumps("Close the valve, wait ten minutes, and call the number on the door.")
    schema = json.dumps({"const": json.loads(text)})
    found = {}
    for guesses in (0, 4):
        engine = opened(guesses=guesses)
        prompt = np.array(engine.vocabulary.encode(f"{text} {text} Again: "))
        found[guesses] = ask_and_wait(engine, Ask(tokens=prompt, most=80, schema=schema))
        engine.close()
        stats = engine.stats()
        steps = len(found[guesses].tokens) / (3 if guesses else 1)
        assert stats["steps"] <= steps + 3
        assert stats["guessed"] >= stats["guessed_right"]
        assert json.loads(engine.vocabulary.decode(found[guesses].tokens)) == json.loads(text)
    assert found[0].tokens == found[4].tokens


def test_what_begins_alike_is_computed_once(opened: Callable[..., OpenVinoTalk]) -> None:
    engine = opened()
    first = ask_and_wait(engine, ask(count=100))
    before = engine.stats()["cached_tokens"]
    again = ask_and_wait(engine, ask(count=100))
    assert engine.stats()["cached_tokens"] - before == 96
    assert again.tokens == first.tokens
    longer = Ask(tokens=np.array([*tokens(0, 100), *first.tokens[:-1], 9]), most=4)
    ask_and_wait(engine, longer)  # the answer is known as well
    assert engine.stats()["cached_tokens"] - before == 96 + 96


def test_long_prompts_are_computed_in_parts(
    opened: Callable[..., OpenVinoTalk], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask_and_wait(opened(), ask(count=300))
    monkeypatch.setattr(openvino_talk, "_STEP_TOKENS", 64)
    engine = opened()
    several = [Collected() for _ in range(3)]
    for seed, collected in enumerate(several):
        engine.ask(ask(seed, count=300), collected.said)
    assert [c.wait(30).finish for c in several] == ["length"] * 3
    assert several[0].tokens == whole.tokens


def test_many_given_tokens_are_scored_in_parts(opened: Callable[..., OpenVinoTalk]) -> None:
    given = tokens(4, 400)
    wanted = tiny_reference(given)[np.arange(399), given[1:]]
    engine = opened()
    found = engine.score(given)
    assert found.log_probability[1:] == pytest.approx(wanted, abs=1e-3)
    part = engine.score(given, since=200, likeliest=1)
    assert np.isnan(part.log_probability[:200]).all()
    assert part.log_probability[200:] == pytest.approx(wanted[199:], abs=1e-3)
    assert [len(a) for a in part.likeliest] == [0] * 200 + [1] * 200
    assert np.isnan(engine.score(given[:1]).log_probability).all()
    with pytest.raises(Problem) as caught:
        engine.score(np.tile(given, 2))
    assert caught.value.code == "G640"


def test_questions_wait_for_room_in_turn(opened: Callable[..., OpenVinoTalk]) -> None:
    engine = opened(cache_tokens=128)
    order: list[int] = []

    def noting(number: int, collected: Collected) -> Callable[[Piece], None]:
        def said(piece: Piece) -> None:
            collected.said(piece)
            if piece.finish:
                order.append(number)

        return said

    several = [Collected() for _ in range(4)]
    for number, collected in enumerate(several):
        engine.ask(ask(number, count=60, most=40), noting(number, collected))
    assert [c.wait(30).finish for c in several] == ["length"] * 4
    assert order == [0, 1, 2, 3]
    engine.close()
    assert engine.stats()["pages_used"] == 0


def test_a_question_that_waits_can_be_cancelled(opened: Callable[..., OpenVinoTalk]) -> None:
    engine = opened(slots=1)
    first, second = Collected(), Collected()
    ticket = engine.ask(ask(0, most=400), first.said)
    engine.ask(ask(1, most=400), second.said).cancel()
    assert second.wait(30).finish == "cancelled"
    assert second.tokens == []
    ticket.cancel()
    assert first.wait(30).finish == "cancelled"


def test_a_runtime_that_fails_fails_the_questions_and_no_later_one(
    opened: Callable[..., OpenVinoTalk], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened()
    good = ask_and_wait(engine, ask())
    compute = engine._paged.compute

    def failing(parts: Any) -> Any:
        monkeypatch.setattr(engine._paged, "compute", compute)
        raise RuntimeError("out of memory at 0x7f00")

    monkeypatch.setattr(engine._paged, "compute", failing)
    with pytest.raises(Problem) as caught:
        ask_and_wait(engine, ask())
    assert caught.value.code == "G644"
    assert ask_and_wait(engine, ask()).tokens == good.tokens
    monkeypatch.setattr(engine._paged, "compute", failing)
    with pytest.raises(Problem):
        engine.score(tokens(0, 40))


def test_a_listener_that_fails_stops_only_its_own_answer(
    opened: Callable[..., OpenVinoTalk],
) -> None:
    engine = opened()
    heard, other = threading.Event(), Collected()

    def failing(piece: Piece) -> None:
        heard.set()
        raise ValueError("nobody listens")

    engine.ask(ask(0, most=400), failing)
    engine.ask(ask(1), other.said)
    assert other.wait(30).finish == "length"
    assert heard.is_set()
    engine.close()
    assert engine.stats()["pages_used"] == 0


def test_an_engine_may_be_closed_by_its_own_thread(opened: Callable[..., OpenVinoTalk]) -> None:
    engine = opened()
    engine.ask(ask(), lambda piece: engine.close())
    engine._thread.join(30)
    assert not engine._thread.is_alive()


def test_a_head_of_its_own(opened: Callable[..., OpenVinoTalk]) -> None:
    file = read_gguf(tiny_talk())
    tensors = {name: file.array(name) for name in file.tensors}
    tensors["output.weight"] = tiny_weights(3)["token_embd.weight"]
    data = gguf_bytes(list(file.entries.values()), [pack(n, a, "f32") for n, a in tensors.items()])
    engines: list[Any] = [OpenVinoTalk(data, EXACT), LlamaCpp(data, {})]
    given = tokens(0, 30)
    found = [engine.score(given).log_probability for engine in engines]
    for engine in engines:
        engine.close()
    assert found[0][1:] == pytest.approx(found[1][1:], abs=0.02)
    assert found[0][1:] != pytest.approx(opened().score(given).log_probability[1:], abs=0.02)


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({"general__architecture": "mamba"}, "G601"),
        ({"llama__block_count": Typed(0)}, "G642"),
        ({"llama__attention__head_count_kv": Typed(3)}, "G642"),
        ({"llama__rope__dimension_count": Typed(16)}, "G642"),
    ],
)
def test_a_form_that_is_not_built_is_refused(entries: dict[str, Any], code: str) -> None:
    with pytest.raises(Problem) as caught:
        sizes_of(read_gguf(changed(tiny_talk(), **entries)))
    assert caught.value.code == code


def test_a_graph_that_the_runtime_refuses_is_a_problem() -> None:
    with pytest.raises(Problem) as caught:
        OpenVinoTalk(changed(tiny_talk(), llama__attention__head_count=Typed(4)), EXACT)
    assert caught.value.code in {"G601", "G642"}


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"threads": 0}, "G103"), ({"cache_tokens": 10}, "G103"), ({"weights": "int3"}, "G103")],
)
def test_settings_that_cannot_be(settings: dict[str, Any], code: str) -> None:
    with pytest.raises(Problem) as caught:
        OpenVinoTalk(tiny_talk(), settings)
    assert caught.value.code in {code, "G102"}


def test_llama_cpp_says_when_a_file_cannot_be_loaded() -> None:
    with pytest.raises(Problem) as caught:
        LlamaCpp(
            changed(tiny_talk(), general__architecture="nothing", nothing__context_length=Typed(9)),
            {},
        )
    assert caught.value.code == "G601"


def test_llama_cpp_keeps_half_characters_to_itself_but_not_the_text() -> None:
    engine = LlamaCpp(tiny_talk(), {})
    exact = OpenVinoTalk(tiny_talk(), EXACT)
    schema = json.dumps({"type": "string", "enum": ["日本語 é 🙂"]})
    found = ask_and_wait(engine, ask(schema=schema, most=60))
    wanted = ask_and_wait(exact, ask(schema=schema, most=60))
    engine.close()
    exact.close()
    words = engine.vocabulary
    assert json.loads(words.decode(found.tokens)) == "日本語 é 🙂"
    written = [token for token in found.tokens if token > 2]  # it writes an end besides
    assert written == wanted.tokens
    assert np.isnan(found.log_probability).any()
    numbers = np.array(found.log_probability[: len(written)])
    told = np.isfinite(numbers)
    assert numbers[told] == pytest.approx(np.array(wanted.log_probability)[told], abs=0.05)


def test_a_mean_leaves_out_what_is_not_told() -> None:
    engine = LlamaCpp(tiny_talk(), {})
    texts = np.array([b"Hello"], dtype=object)
    found = answer_texts(engine, {"messages": texts, "max_tokens": np.full(1, 12.0)})
    engine.close()
    assert np.isfinite(found["log_probability"]).all()


def test_pages_that_many_share_are_kept_longest() -> None:
    pages = Pages(4, 2)
    first = pages.take(np.array([1, 2, 3]), 4)
    assert first is not None
    pages.full(first, np.array([1, 2, 3, 4]))
    pages.give_back(first)
    assert pages.used == 0
    second = pages.take(np.array([5, 6, 7]), 6)  # takes the end of the first before its beginning
    assert second is not None
    third = pages.take(np.array([1, 2, 9]), 2)
    assert third is not None
    assert third.shared == 2
    assert pages.take(np.array([1, 2, 9]), 4) is None


def test_pages_with_the_same_tokens_after_others_are_others() -> None:
    pages = Pages(8, 2)
    first = pages.take(np.array([1, 2, 3, 4, 5]), 6)
    assert first is not None
    pages.full(first, np.array([1, 2, 3, 4, 5]))
    other = pages.take(np.array([9, 9, 3, 4, 5]), 6)
    assert other is not None
    assert other.shared == 0
    pages.full(other, np.array([9, 9, 3, 4]))
    same = pages.take(np.array([9, 9, 3, 4, 5]), 6)
    assert same is not None
    assert same.pages[:2] == other.pages[:2]


def test_chance_follows_the_probabilities() -> None:
    shares = np.array([0.5, 0.3, 0.15, 0.05])
    logits = np.log(shares).astype(np.float32)
    how = Ask(tokens=np.array([0]), temperature=1.0, seed=0)
    chance = generator(how)
    drawn = [choose(logits, 0.5, how, chance, None).token for _ in range(4000)]
    assert np.bincount(drawn, minlength=4) / 4000 == pytest.approx(shares, abs=0.03)
    narrow = Ask(tokens=np.array([0]), temperature=1.0, top_p=0.75, seed=0)
    assert {choose(logits, 0.5, narrow, chance, None).token for _ in range(200)} == {0, 1}
    hot = Ask(tokens=np.array([0]), temperature=5.0, seed=0)
    drawn = [choose(logits, 0.5, hot, chance, None).token for _ in range(2000)]
    assert np.bincount(drawn, minlength=4)[3] / 2000 > 0.15
    assert generator(Ask(tokens=np.array([0]))) is None


def test_a_wide_nucleus_and_all_alternatives() -> None:
    logits = np.zeros(1000, dtype=np.float32)
    how = Ask(tokens=np.array([0]), temperature=1.0, top_p=0.9, seed=0)
    chance = generator(how)
    assert len({choose(logits, 1e-3, how, chance, None).token for _ in range(3000)}) > 700
    assert len(likeliest(logits, 0.0, 2000)) == 1000


def test_the_context_is_what_fits_into_the_cache(opened: Callable[..., OpenVinoTalk]) -> None:
    assert opened(cache_tokens=4 * PAGE).context == 4 * PAGE
    assert opened().context == CONTEXT
