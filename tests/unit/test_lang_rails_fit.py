"""The attack set and the classifier that is trained on it."""

import numpy as np
import pytest

from genba.core.protocols import Array
from genba.edge.rails import Classifier, Policy, Rails, blocks
from genba.edge.rails.classifier import BINS
from genba.edge.rails.letters import letters
from genba.edge.rails.readings import readings
from genba.learn.rails import Settings, fit, generated, measure, prompts

FEW = Settings(phrases=300)


@pytest.fixture(scope="module")
def arrays() -> dict[str, Array]:
    return fit(None, ["How do I book a room?", "部屋の予約は？"], FEW)


def test_the_set() -> None:
    attacks = [p for p in prompts() if p.attack]
    harmless = [p for p in prompts() if not p.attack]
    assert len(attacks) >= 400
    assert len(harmless) >= 200
    for rows in (attacks, harmless):
        held = sum(p.held_out for p in rows) / len(rows)
        assert 0.3 < held < 0.5
        assert {p.language for p in rows} == {"en", "ja"}
    assert {p.kind for p in attacks} == {
        *("direct", "disclosure", "roleplay", "multi", "document", "encoded")
    }
    assert len({p.text for p in prompts()}) == len(prompts())


def test_variants_of_a_prompt_are_on_one_side() -> None:
    written = {p.family: p for p in prompts() if not p.code}
    for prompt in prompts():
        assert prompt.held_out == written[prompt.family].held_out


def test_codes_are_read() -> None:
    written = {p.family: letters(p.text)[:40] for p in prompts() if not p.code}
    coded = [p for p in prompts() if p.code]
    read = [any(written[p.family] in letters(r) for r in readings(p.text)) for p in coded]
    assert np.mean(read) > 0.95


def test_generated_prompts() -> None:
    made = generated(60, attack=True, seed=3)
    assert made == generated(60, attack=True, seed=3) != generated(60, attack=True, seed=4)
    assert all("{" not in p.text and p.text for p in made + generated(60, attack=False))
    assert {p.language for p in made} == {"en", "ja"}


def test_the_same_prompts_give_the_same_classifier(arrays: dict[str, Array]) -> None:
    again = fit(None, ["How do I book a room?", "部屋の予約は？"], FEW)
    assert arrays["weights"].shape == (BINS + 1,)
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again[name])


def test_it_closes_on_attacks_that_it_never_saw(arrays: dict[str, Array]) -> None:
    rails = Rails(Policy(injection=False), Classifier(arrays, None))
    found = measure(rails)
    assert found["block_rate"].value > 0.15
    assert found["false_block_rate"].value < 0.08
    both = measure(Rails(Policy(), Classifier(arrays, None)))
    assert both["block_rate"].value > found["block_rate"].value
    for name in ("block_rate/document", "block_rate/ja", "false_block_rate/en"):
        one = found[name]
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high


def test_an_encoder_adds_what_texts_mean() -> None:
    def embed(texts: list[str]) -> Array:
        return np.array([[t.count("zebra"), 1.0] for t in texts], dtype=np.float32)

    arrays = fit(embed, [f"zebra {n}" for n in range(9)], FEW)  # type: ignore[arg-type]  # a list
    assert arrays["weights"].shape == (BINS + 3,)
    rails = Rails(Policy(injection=False), Classifier(arrays, embed))  # type: ignore[arg-type]
    assert blocks(rails, ["what does a zebra eat"]) == [""]
    assert arrays["weights"][BINS] < 0  # zebras are harmless
