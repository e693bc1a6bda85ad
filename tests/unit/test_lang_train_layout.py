"""How conversations lie in memory while they are learned."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genba.learn.language.examples import Example
from genba.learn.language.layout import lay_out, micro_batches

CONVERSATIONS = st.lists(
    st.lists(st.integers(0, 2), min_size=2, max_size=12), min_size=1, max_size=8
)


def example(tokens: list[int]) -> Example:
    # The first half was asked, the second is learned.
    learned = np.arange(len(tokens)) >= (len(tokens) + 1) // 2
    return Example(tokens=np.array(tokens, np.int32), answer=learned)


@given(CONVERSATIONS)
def test_every_conversation_is_seen_whole(conversations: list[list[int]]) -> None:
    layout = lay_out([example(tokens) for tokens in conversations])
    # Each row of a grid is a conversation: its tokens at the positions 0, 1, 2, ...
    rows = []
    for grid in layout.grids:
        for row in grid:
            length = int(np.argmin(layout.position[row] == np.arange(len(row))))
            whole = bool((layout.position[row] == np.arange(len(row))).all())
            rows.append(layout.tokens[row[: len(row) if whole else length]].tolist())
    assert sorted(rows) == sorted(conversations)
    assert layout.read == sum(map(len, conversations))


@given(CONVERSATIONS)
def test_beginnings_in_common_are_kept_once(conversations: list[list[int]]) -> None:
    layout = lay_out([example(tokens) for tokens in conversations])
    beginnings = {tuple(c[: i + 1]) for c in conversations for i in range(len(c))}
    assert len(layout.tokens) == len(beginnings)
    apart = lay_out([example(tokens) for tokens in conversations], share=False)
    assert len(apart.tokens) == apart.read
    assert len(apart.again) == 0


@given(CONVERSATIONS)
def test_each_place_belongs_to_one_token(conversations: list[list[int]]) -> None:
    layout = lay_out([example(tokens) for tokens in conversations])
    cells = np.concatenate([grid.reshape(-1) for grid in layout.grids])
    assert np.array_equal(cells[layout.own], np.arange(len(layout.tokens)))
    assert np.array_equal(cells[layout.again], layout.again_of)
    places = np.concatenate([layout.own, layout.again])
    assert len(np.unique(places)) == len(places) == layout.read


@given(CONVERSATIONS)
def test_what_is_learned_is_the_answer(conversations: list[list[int]]) -> None:
    examples = [example(tokens) for tokens in conversations]
    layout = lay_out(examples)
    for i, one in enumerate(examples):
        mine = layout.of == i
        at = np.flatnonzero(one.answer[1:])
        assert layout.target[mine].tolist() == one.tokens[at + 1].tolist()
        assert layout.position[layout.rows[mine]].tolist() == at.tolist()
        assert layout.tokens[layout.rows[mine]].tolist() == one.tokens[at].tolist()


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 60))
def test_parts_hold_everything_once_and_not_too_much(lengths: list[int], most: int) -> None:
    parts = micro_batches(lengths, most)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    for part in parts:
        assert part
        assert len(part) == 1 or sum(lengths[i] for i in part) <= most
