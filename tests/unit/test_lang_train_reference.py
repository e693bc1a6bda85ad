"""The yardstick: a tuned model that answers."""

from pathlib import Path

import numpy as np
import pytest

from genba.edge.texts import as_bytes
from genba.learn.language.bases import Base
from genba.learn.language.examples import Example
from genba.learn.language.reference import Reference
from tests.unit.lang_train_parts import tiny_base

ASKED = as_bytes(["Hello", '[{"role":"user","content":"Who are you?"}]', "x"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(Path(tmp_path_factory.mktemp("base")))


def test_what_it_writes_is_as_likely_as_it_says(base: Base) -> None:
    reference = Reference(base, {}, {})
    most = np.full(3, 9, np.float32)
    written = reference.run({"messages": ASKED, "max_tokens": most})
    for row, text in enumerate(ASKED):
        prompt = reference.vocabulary.prompt([{"role": "user", "content": text.decode()}])
        if row != 1:
            assert written["tokens"][row, 0] == len(prompt)
    assert (written["tokens"][:, 1] <= 9).all()
    assert all(written["answer"])
    again = reference.run({"messages": ASKED, "max_tokens": most})
    assert written["answer"].tolist() == again["answer"].tolist()
    assert np.array_equal(written["log_probability"], again["log_probability"])


def test_reading_piece_by_piece_is_reading_at_once(base: Base) -> None:
    reference = Reference(base, {}, {})
    prompt = reference.vocabulary.prompt([{"role": "user", "content": "Hello"}])
    said, found = reference._write(prompt, 0, {"max_tokens": np.array([12.0])})
    whole = np.array([*prompt, *said], np.int32)
    example = Example(tokens=whole, answer=np.arange(len(whole)) >= len(prompt))
    np.testing.assert_allclose(reference.score([example])[0], found, atol=1e-4)


def test_given_answers_are_scored_with_their_end(base: Base) -> None:
    reference = Reference(base, {}, {})
    given = as_bytes(["Good day.", "", "No"])
    found = reference.run(
        {"messages": ASKED, "given": given, "max_tokens": np.array([3.0, 3.0, 3.0])}
    )
    assert found["answer"][0] == given[0]
    assert found["answer"][2] == given[2]
    count = len(reference.vocabulary.encode("Good day.")) + 1
    assert found["tokens"][0, 1] == count
    assert (found["log_probability"] < 0).all()


def test_temperature_draws_and_top_p_narrows(base: Base) -> None:
    reference = Reference(base, {}, {})
    asked = as_bytes(["Hello"] * 4)
    hot = {"messages": asked, "max_tokens": np.full(4, 6.0), "temperature": np.full(4, 3.0)}
    answers = reference.run(hot)["answer"].tolist()
    assert len(set(answers)) > 1
    assert reference.run(hot)["answer"].tolist() == answers  # equal each time
    narrow = reference.run({**hot, "top_p": np.full(4, 1e-6)})["answer"].tolist()
    assert len(set(narrow)) == 1


def test_nothing_is_asked(base: Base) -> None:
    found = Reference(base, {}, {}).run({"messages": as_bytes([])})
    assert found["tokens"].shape == (0, 2)
