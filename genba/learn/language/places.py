"""A layout as torch sees it: positions as angles, and which row of what goes where."""

from dataclasses import dataclass

import torch

from genba.learn.language.layout import Layout
from genba.learn.language.shape import Shape


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Grid:
    """Conversations of similar length in attention: B of them, L tokens at most."""

    size: tuple[int, int]  # B, L
    queries: torch.Tensor  # int64 [B * key heads * group * L]: rows of the projected heads
    keys: torch.Tensor  # int64 [B * key heads * L]
    values: torch.Tensor
    mask: torch.Tensor  # [L, L]: 0 where a token may look, -inf after it


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Places:
    """What every layer needs to know about a batch."""

    tokens: torch.Tensor  # int64 [T]
    cosine: torch.Tensor  # [T, 1, half a head]
    sine: torch.Tensor
    grids: tuple[Grid, ...]
    seen: torch.Tensor  # int64 [T * heads]: rows of the grids' results, laid end to end
    key_seen: torch.Tensor  # int64 [T * key heads]: rows of the grids' keys
    again: torch.Tensor  # int64: rows of the grids' keys that show a token kept elsewhere
    again_of: torch.Tensor  # int64: its row among all tokens' keys


def places_of(layout: Layout, shape: Shape, kind: torch.dtype) -> Places:
    """Return a layout as torch sees it.

    Args:
        layout: The batch.
        shape: Of the model.
        kind: Number format of the arithmetic.
    """
    grids, place, key_place, start, key_start = [], [], [], 0, 0
    for array in layout.grids:
        grid, rows, key_rows = _grid(torch.from_numpy(array), shape, kind)
        grids.append(grid)
        place.append(rows + start)
        key_place.append(key_rows + key_start)
        start += rows.numel()
        key_start += key_rows.numel()
    own = torch.from_numpy(layout.own)
    rows, key_rows = torch.cat(place), torch.cat(key_place)
    heads = torch.arange(shape.key_heads)
    again_of = torch.from_numpy(layout.again_of)[:, None] * shape.key_heads + heads
    cosine, sine = angles(torch.from_numpy(layout.position), shape)
    return Places(
        tokens=torch.from_numpy(layout.tokens),
        cosine=cosine.to(kind),
        sine=sine.to(kind),
        grids=tuple(grids),
        seen=rows[own].reshape(-1),
        key_seen=key_rows[own].reshape(-1),
        again=key_rows[torch.from_numpy(layout.again)].reshape(-1),
        again_of=again_of.reshape(-1),
    )


def angles(position: torch.Tensor, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosine and sine of the rotary position embedding, float32 [T, 1, half a head].

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864.
    """
    steps = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angle = position[:, None, None].float() / shape.rope**steps
    return angle.cos(), angle.sin()


def _grid(
    tokens: torch.Tensor, shape: Shape, kind: torch.dtype
) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """Return a grid, and per place (B * L) the rows of its results [heads] and keys [key heads]."""
    count, length = tokens.shape
    keys, group = shape.key_heads, shape.heads // shape.key_heads
    width = shape.heads + 2 * keys  # rows of a token: its queries, keys, values
    query = (torch.arange(shape.heads)).view(1, keys, group, 1)
    key = torch.arange(keys).view(1, keys, 1)
    first = tokens * width
    ahead = torch.full((length, length), -torch.inf).triu(1).to(kind)
    batch, at = torch.arange(count).view(-1, 1, 1), torch.arange(length).view(1, -1, 1)
    heads, key_heads = torch.arange(shape.heads), torch.arange(keys)
    found = Grid(
        size=(count, length),
        queries=(first[:, None, None, :] + query).reshape(-1),
        keys=(first[:, None, :] + shape.heads + key).reshape(-1),
        values=(first[:, None, :] + shape.heads + keys + key).reshape(-1),
        mask=ahead,
    )
    rows = (batch * shape.heads + heads) * length + at
    key_rows = (batch * keys + key_heads) * length + at
    return found, rows.view(-1, shape.heads), key_rows.view(-1, keys)
