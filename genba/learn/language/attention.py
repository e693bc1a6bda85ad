"""Attention over conversations of different length, and its gradient.

Written as batched matrix products over short conversations: at these lengths torch's fused
attention takes twice as long forward and five times as long back on a processor (measured by
benchmarks/tune).
"""

from dataclasses import dataclass

import torch

from genba.learn.language.places import Grid, Places
from genba.learn.language.shape import Shape


@dataclass(slots=True, eq=False)
class Attended:
    """What the gradient needs: of each grid its queries, keys, values and who looked where."""

    queries: list[torch.Tensor]  # each [B * key heads, group * L, head width]
    keys: list[torch.Tensor]  # each [B * key heads, L, head width]
    values: list[torch.Tensor]
    looked: list[torch.Tensor]  # each [B * key heads, group * L, L]


def rotate(projected: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, shape: Shape) -> None:
    """Turn queries and keys by their position, in place; with `-sine`, back.

    Args:
        projected: [T, (heads + 2 key heads) * head width].
        cosine: [T, 1, half a head].
        sine: The same.
        shape: Of the model.
    """
    half = shape.head_width // 2
    turned = projected[:, : (shape.heads + shape.key_heads) * shape.head_width]
    heads = turned.view(len(projected), -1, 2 * half)
    first, second = heads[..., :half], heads[..., half:]
    new_first = (first * cosine).addcmul_(second, sine, value=-1)
    new_second = (second * cosine).addcmul_(first, sine)
    first.copy_(new_first)
    second.copy_(new_second)


def attend(projected: torch.Tensor, places: Places, shape: Shape) -> tuple[torch.Tensor, Attended]:
    """Return what each token sees, [T, heads * head width], and what the gradient needs."""
    rows = projected.view(-1, shape.head_width)
    found = Attended([], [], [], [])
    results = []
    for grid in places.grids:
        queries, keys, values = _taken(rows, grid, shape)
        looked = _looked(queries, keys, grid)
        results.append((looked @ values).view(-1, shape.head_width))
        found.queries.append(queries)
        found.keys.append(keys)
        found.values.append(values)
        found.looked.append(looked)
    whole = results[0] if len(results) == 1 else torch.cat(results)
    seen = whole.index_select(0, places.seen)
    return seen.view(len(projected), -1), found


def _taken(
    rows: torch.Tensor, grid: Grid, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    many, length = grid.size[0] * shape.key_heads, grid.size[1]
    queries = rows.index_select(0, grid.queries).view(many, -1, shape.head_width)
    keys = rows.index_select(0, grid.keys).view(many, length, -1)
    values = rows.index_select(0, grid.values).view(many, length, -1)
    return queries.mul_(shape.head_width**-0.5), keys, values


def _looked(queries: torch.Tensor, keys: torch.Tensor, grid: Grid) -> torch.Tensor:
    scores = queries @ keys.transpose(1, 2)
    length = grid.size[1]
    scores.view(len(scores), -1, length, length).add_(grid.mask)
    return torch.softmax(scores, -1)


def attend_back(
    gradient: torch.Tensor, kept: Attended, places: Places, shape: Shape
) -> torch.Tensor:
    """Return the gradient of queries, keys and values, as they were projected.

    Args:
        gradient: [T, heads * head width], of what `attend` returned.
        kept: What it kept.
        places: The batch.
        shape: Of the model.
    """
    count, width = len(gradient), shape.head_width
    sizes = [q.shape[0] * q.shape[1] for q in kept.queries]
    spread = gradient.new_zeros(sum(sizes), width)
    spread.index_copy_(0, places.seen, gradient.reshape(-1, width))
    parts: list[tuple[torch.Tensor, ...]] = []
    for i, back in enumerate(spread.split(sizes)):
        queries, keys, values = kept.queries[i], kept.keys[i], kept.values[i]
        looked, back = kept.looked[i], back.view_as(queries)
        moved = torch.ops.aten._softmax_backward_data(
            back @ values.transpose(1, 2), looked, -1, looked.dtype
        )
        of_queries = (moved @ keys).mul_(width**-0.5)
        of_keys, of_values = moved.transpose(1, 2) @ queries, looked.transpose(1, 2) @ back
        parts.append((of_queries, of_keys, of_values))
    whole = [torch.cat([x.view(-1, width) for x in part]) for part in zip(*parts, strict=True)]
    result = gradient.new_empty(count, shape.heads + 2 * shape.key_heads, width)
    result[:, : shape.heads] = whole[0].index_select(0, places.seen).view(count, -1, width)
    for at, part in ((shape.heads, whole[1]), (shape.heads + shape.key_heads, whole[2])):
        result[:, at : at + shape.key_heads] = _gathered(part, places).view(count, -1, width)
    return result.view(count, -1)


def _gathered(part: torch.Tensor, places: Places) -> torch.Tensor:
    """Return the gradient of keys or values by token; one seen in many places gets their sum."""
    own = part.index_select(0, places.key_seen)
    if not len(places.again):
        return own
    added = own.float().index_add_(0, places.again_of, part.index_select(0, places.again).float())
    return added.to(part.dtype)
