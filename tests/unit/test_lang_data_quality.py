"""The rules of quality for plain texts, their words and runs, and near-duplicates of them."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.data.texts import alike, quality
from genba.data.texts.shingles import plain, runs_of_characters, runs_of_words
from genba.data.texts.tokens import Tokens
from genba.store.home import Store
from tests.unit import text_rows as texts

_SYLLABLES = (
    "ba",
    "ke",
    "li",
    "mo",
    "nu",
    "ra",
    "so",
    "ti",
    "ve",
    "zu",
    "dan",
    "fer",
    "gol",
    "hin",
)


def prose(seed: int, words: int = 120) -> str:
    """Sentences of words that mean nothing and repeat little."""
    chance = random.Random(seed)
    found = ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(words)]
    for at in range(9, words, 10):
        found[at] += ".\n" if at % 20 == 9 else "."
    return " ".join(found)


BAD = {
    "too few words": "Too short to be read.",
    "words are too short": "a b c " + " ".join(f"{c}{d}" for c in "abcdefgh" for d in "ijklmnop"),
    "words are too long": " ".join(f"antidisestablish{n}mentarian" for n in range(60)),
    "too many hash signs": " # ".join(prose(1).split()),
    "too many ellipses": " ... ".join(prose(2).split()),
    "too few words with letters": " ".join(f"{word} 123" for word in prose(3).split()),
    "lines are bullets": "\n".join(f"- {prose(n, 9)}" for n in range(10, 30)),
    "lines end in ellipses": "\n".join(f"{prose(n, 20)} …" for n in range(30, 36)),
    "the same lines": prose(4).replace("\n", "\n" + prose(5, 12) + "\n"),
    "one run of 2 words makes up too much of it": "spam ham " * 60,
    "runs of 5 words come again": prose(6, 200)
    + "\n"
    + " ".join(prose(6, 200).split()[3:60])
    + " x",
}


@pytest.mark.parametrize("reason", BAD)
def test_each_rule_has_a_text_that_it_rejects(reason: str) -> None:
    found = quality.reasons(pl.Series([prose(0), BAD[reason]]), pl.Series([True, True]))
    assert {at: why for at, (why, _) in found.items()} == {1: reason}


def test_english_is_told_by_its_commonest_words() -> None:
    two = prose(0) + " the end of it"
    found = quality.reasons(pl.Series([prose(0), two]), pl.Series([True, True]), english=True)
    assert {at: why for at, (why, _) in found.items()} == {0: "no English"}


def test_rules_on_words_are_not_asked_of_texts_without_spaces() -> None:
    japanese = "".join(chr(0x3042 + n % 80) + "月火水木金土"[n % 6] for n in range(300))
    found = quality.reasons(pl.Series([japanese]), pl.Series([True]))
    assert "too few words" not in str(found)
    assert "words are too long" not in str(found)


def test_many_texts_are_judged_as_one_by_one(monkeypatch: Any) -> None:
    given = [prose(n) for n in range(20)] + list(BAD.values())
    random.Random(1).shuffle(given)
    wanted = pl.Series([True] * len(given))
    together = quality.reasons(pl.Series(given), wanted)
    monkeypatch.setattr(quality, "_AT_ONCE", 1_000)
    assert quality.reasons(pl.Series(given), wanted) == together
    alone = {
        at: found[0]
        for at, text in enumerate(given)
        if (found := quality.reasons(pl.Series([text]), pl.Series([True])))
    }
    assert alone == together
    assert quality.reasons(pl.Series(given), pl.Series([False] * len(given))) == {}


def slow_top(words: list[str], length: int) -> int:
    runs = [" ".join(words[at : at + length]) for at in range(len(words) - length + 1)]
    best = max(runs, key=runs.count, default="")
    return len(best) * runs.count(best)


def test_runs_of_words_are_counted_as_somebody_would() -> None:
    chance = random.Random(2)
    given = [" ".join(chance.choices(["ab", "cde", "fg", "hij"], k=n)) for n in (3, 30, 60, 1)]
    tokens = Tokens(given)
    for length in (2, 3, 4):
        assert tokens.top(length).tolist() == [slow_top(text.split(), length) for text in given]
    assert [tokens.words(at) for at in range(4)] == [text.split() for text in given]
    assert Tokens(["", "  "]).counts.tolist() == [0, 0]
    said = Tokens(["It's (here): ---- x-y::z.w!!", "", "a"])
    assert said.words(0) == [
        "It's",
        "(",
        "here",
        ")",
        ":",
        "----",
        "x",
        "-",
        "y",
        "::",
        "z.w",
        "!!",
    ]
    assert (said.counts.tolist(), said.words(2)) == ([12, 0, 1], ["a"])


def test_pieces_are_those_of_each_text_alone() -> None:
    given = plain(pl.Series([prose(1), "", "確認申請とは何ですか", "x", prose(2, 5)]))
    for cut, length in ((runs_of_words, 3), (runs_of_characters, 4)):
        together = cut(given, length)
        for at, text in enumerate(given.to_list()):
            alone = cut(pl.Series([text]), length)
            assert together.of(at).tolist() == alone.hashes.tolist()
        units = [t.split() if cut is runs_of_words else t for t in given.to_list()]
        expected = [max(len(u) - length + 1, min(len(u), 1)) for u in units]
        assert together.counts.tolist() == expected


def test_near_copies_of_documents_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n:02d}.txt").write_text(prose(n + 50, 300))
    words = prose(50, 300).split(" ")
    words[100] = "changed"
    (folder / "copy.txt").write_text(" ".join(words))
    with Store.open(tmp_path / "home") as store:
        view = texts.taken(store, texts.line(folder))
        assert view.version.rejected == {"near-duplicate": 1}
        found = texts.rows(view)
        assert len(found) == 12
        assert {(r["messages"], r["text"]) for r in found} == {("[]", "")}
        assert view.sheet()["texts"]["shapes"] == {"plain text": 12}


def test_signatures_find_what_counting_finds() -> None:
    """Every pair that is alike by exact count is found; none that is not."""
    chance = random.Random(3)
    base = [prose(n, 14) for n in range(60)]
    given = list(base)
    for text in base[:30]:
        words = text.split()
        words[chance.randrange(len(words))] = "altered"
        given.append(" ".join(words))
    series = plain(pl.Series(given))
    found = {tuple(pair) for pair in alike._alike(series, 0.7, np.ones(90, dtype=bool)).tolist()}
    sets = [set(runs_of_characters(series, 4).of(n).tolist()) for n in range(90)]
    exact = {
        (a, b)
        for a in range(90)
        for b in range(a + 1, 90)
        if len(sets[a] & sets[b]) >= 0.7 * len(sets[a] | sets[b])
    }
    assert found == exact
    assert len(exact) > 10


def test_where_everything_is_alike_only_equal_questions_are_grouped() -> None:
    asked = [f"how many weeks do i have to wait for paper {n}" for n in range(60)]
    keys = alike.Keys(
        asked=pl.Series(asked),
        said=pl.Series([f"answer {n}" for n in range(60)]),
        rejected=pl.Series([""] * 60),
        conversation=np.ones(60, dtype=bool),
    )
    found = alike.groups(keys)
    assert found.crowded
    assert len(set(found.first.tolist())) == 60
