"""How conversations lie in memory while they are learned: one after the other, no padding.

Everything but attention looks at one token at a time, so the tokens of many conversations simply
follow each other. Attention sees each conversation alone, in a grid of conversations of about the
same length: nothing leaks from one into another. Where conversations begin alike (a system prompt,
the question of two answers), those tokens are kept once: under a causal mask what the network
makes of a token depends on nothing but the tokens before it, so the result is the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from genba.core.protocols import Array
from genba.learn.language.examples import Example

_WASTE: Final = 1.25  # how much longer than its shortest row a grid may be before it is divided


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layout:
    """A batch as flat tokens; `own` and `grids` say how attention sees them."""

    tokens: Array  # int64 [T]
    position: Array  # int64 [T]: of a token in its conversation
    grids: tuple[Array, ...]  # each int64 [B, L]: the flat token at a place; 0 behind the end
    own: Array  # int64 [T]: where in the grids, laid end to end, a flat token stands first
    again: Array  # int64 [K]: places in the grids that show a token kept elsewhere
    again_of: Array  # int64 [K]: its flat token
    rows: Array  # int64 [M]: flat tokens whose successor is learned
    target: Array  # int64 [M]: that successor
    of: Array  # int64 [M]: the example it belongs to, by its place in the batch
    read: int  # tokens of all conversations; above T where beginnings are shared


def lay_out(examples: Sequence[Example], *, share: bool = True) -> Layout:
    """Return conversations as one batch.

    Args:
        examples: At least one; each has at least one token.
        share: Whether tokens that conversations begin with in common are kept once.
    """
    order = sorted(range(len(examples)), key=lambda i: examples[i].tokens.tolist())
    flat: dict[int, Array] = {}  # of an example: its flat tokens
    tokens, position, count, before = [], [], 0, None
    for i in order:
        mine = examples[i].tokens
        shared = _alike(examples[before].tokens, mine) if share and before is not None else 0
        new = np.arange(count, count + len(mine) - shared)
        flat[i] = new if before is None else np.concatenate([flat[before][:shared], new])
        tokens.append(mine[shared:])
        position.append(np.arange(shared, len(mine)))
        count, before = count + len(new), i
    grids = tuple(_grids([flat[i] for i in range(len(examples))]))
    own, again, again_of = _places(grids, [len(e.tokens) for e in examples], flat, count)
    learned = [np.flatnonzero(e.answer[1:]) for e in examples]
    return Layout(
        tokens=np.concatenate(tokens).astype(np.int64),
        position=np.concatenate(position),
        grids=tuple(grid for grid, _ in grids),
        own=own,
        again=again,
        again_of=again_of,
        rows=np.concatenate([flat[i][at] for i, at in enumerate(learned)]),
        target=np.concatenate(
            [e.tokens[at + 1] for e, at in zip(examples, learned, strict=True)]
        ).astype(np.int64),
        of=np.repeat(np.arange(len(examples)), [len(at) for at in learned]),
        read=sum(len(e.tokens) for e in examples),
    )


def _alike(one: Array, other: Array) -> int:
    """Return how many tokens two conversations begin with in common."""
    most = min(len(one), len(other))
    differs = np.flatnonzero(one[:most] != other[:most])
    return int(differs[0]) if len(differs) else most


def _grids(flat: Sequence[Array]) -> Iterator[tuple[Array, list[int]]]:
    """Yield grids of conversations of similar length, and which conversations are in them."""
    rows: list[int] = []
    for i in sorted(range(len(flat)), key=lambda i: (len(flat[i]), i)):
        if rows and len(flat[i]) > _WASTE * len(flat[rows[0]]):
            yield _grid(flat, rows), rows
            rows = []
        rows.append(i)
    yield _grid(flat, rows), rows


def _grid(flat: Sequence[Array], rows: Sequence[int]) -> Array:
    grid = np.zeros((len(rows), max(len(flat[i]) for i in rows)), np.int64)
    for row, i in enumerate(rows):
        grid[row, : len(flat[i])] = flat[i]
    return grid


def _places(
    grids: Sequence[tuple[Array, list[int]]], length: Sequence[int], flat: dict[int, Array], n: int
) -> tuple[Array, Array, Array]:
    """Return where each flat token stands first, and the further places where one is seen."""
    places, seen, start = [], [], 0
    for grid, rows in grids:
        for row, i in enumerate(rows):
            places.append(start + row * grid.shape[1] + np.arange(length[i]))
            seen.append(flat[i])
        start += grid.size
    place, token = np.concatenate(places), np.concatenate(seen)
    own = np.full(n, -1, np.int64)
    own[token[::-1]] = place[::-1]  # the first place wins
    more = own[token] != place
    return own, place[more], token[more]


def micro_batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Divide the examples of a step into parts of at most so many tokens, alike ones together.

    Args:
        lengths: Tokens of each example.
        most: Tokens of a part; a longer example is a part of its own.

    Example:
        >>> micro_batches([5, 90, 6, 80], 100)
        [[0, 2, 3], [1]]
    """
    parts: list[list[int]] = [[]]
    held = 0
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if parts[-1] and held + lengths[i] > most:
            parts.append([])
            held = 0
        parts[-1].append(i)
        held += lengths[i]
    return parts if held else []
