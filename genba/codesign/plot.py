"""Points and their front as a picture: characters for a terminal, SVG for a file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

Mark = Literal["chosen", "front", "measured", "refused"]

_SIGNS: Final[Mapping[Mark, str]] = {"chosen": "●", "front": "○", "measured": "·", "refused": "×"}
_ORDER: Final[tuple[Mark, ...]] = ("refused", "measured", "front", "chosen")
_COLOURS: Final[Mapping[Mark, str]] = {
    "chosen": "#0a7d32",
    "front": "#1f5fbf",
    "measured": "#9aa0a6",
    "refused": "#c5221f",
}
_WIDE, _HIGH = 720, 440  # pixels of the picture
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 64, 84
_TICKS: Final = 4
_ROOM: Final = 0.05  # of the range, beyond the outermost points


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """One point of the picture."""

    x: float
    y: float
    mark: Mark
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """What is drawn against what; both are logarithmic where all values are above zero."""

    x: str
    y: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    """From values to a share of an axis."""

    low: float
    high: float
    log: bool

    def share(self, value: float) -> float:
        known = math.log(value) if self.log else value
        return (known - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        steps = [self.low + (self.high - self.low) * i / _TICKS for i in range(_TICKS + 1)]
        return [math.exp(s) if self.log else s for s in steps]


def _scale(values: Sequence[float]) -> _Scale:
    log = min(values) > 0
    known = [math.log(v) if log else v for v in values]
    low, high = min(known), max(known)
    room = (high - low) * _ROOM or abs(high) * _ROOM or 1.0
    return _Scale(low=low - room, high=high + room, log=log)


def in_characters(
    dots: Sequence[Dot], axes: Axes, *, width: int = 60, height: int = 14
) -> list[str]:
    """Return the picture as lines of text; no line for no dots.

    Example:
        >>> dots = [Dot(x=1, y=2, mark="chosen", label="a"), Dot(x=4, y=1, mark="front", label="b")]
        >>> for line in in_characters(dots, Axes(x="ms", y="MiB"), width=12, height=3):
        ...     print(line)
        MiB
           2 │●
             │
           1 │          ○
             └────────────
              1         4  ms
        ● chosen  ○ front  · measured  × refused
    """
    if not dots:
        return []
    across, up = _scale([d.x for d in dots]), _scale([d.y for d in dots])
    rows = [[" "] * width for _ in range(height)]
    for mark in _ORDER:  # what matters most is drawn last
        for dot in (d for d in dots if d.mark == mark):
            column = round(across.share(dot.x) * (width - 1))
            row = round((1 - up.share(dot.y)) * (height - 1))
            rows[row][column] = _SIGNS[mark]
    least, most = min(d.y for d in dots), max(d.y for d in dots)
    names = {0: f"{most:.4g}", height - 1: f"{least:.4g}"}
    space = max(4, *map(len, names.values()))
    lines = [axes.y]
    lines += [
        f"{names.get(at, ''):>{space}} │{''.join(row)}".rstrip() for at, row in enumerate(rows)
    ]
    first, last = f"{min(d.x for d in dots):.4g}", f"{max(d.x for d in dots):.4g}"
    lines.append(f"{'':>{space}} └{'─' * width}")
    lines.append(f"{'':>{space}}  {first}{last:>{max(1, width - len(first) - 1)}}  {axes.x}")
    lines.append("  ".join(f"{_SIGNS[mark]} {mark}" for mark in reversed(_ORDER)))
    return lines


def as_svg(dots: Sequence[Dot], axes: Axes, title: str) -> str:
    """Return the picture as a file of its own: no scripts, no fonts, nothing from elsewhere.

    Example:
        >>> dots = [Dot(x=1, y=2, mark="chosen", label="a<b")]
        >>> "<svg" in as_svg(dots, Axes(x="ms", y="MiB"), "t")
        True
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" '
        f'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDE}" height="{_HIGH}" fill="white"/>',
        _text(_LEFT, 24, title, "start", bold=True),
    ]
    if dots:
        parts += _drawn(dots, axes)
    return "\n".join([*parts, "</svg>", ""])


def _drawn(dots: Sequence[Dot], axes: Axes) -> list[str]:
    across, up = _scale([d.x for d in dots]), _scale([d.y for d in dots])
    inner, tall = _WIDE - _LEFT - _RIGHT, _HIGH - _TOP - _BOTTOM

    def place(dot: Dot) -> tuple[float, float]:
        return _LEFT + across.share(dot.x) * inner, _TOP + (1 - up.share(dot.y)) * tall

    bottom = _HIGH - _BOTTOM
    parts = [
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDE - _RIGHT}" fill="none" stroke="#444"/>',
        _text(_LEFT + inner / 2, bottom + 38, axes.x, "middle"),
        _text(8, _TOP - 14, axes.y, "start"),
        *_legend(),
    ]
    for value in across.ticks():
        x = _LEFT + across.share(value) * inner
        parts.append(_text(x, bottom + 18, f"{value:.3g}", "middle"))
    for value in up.ticks():
        y = _TOP + (1 - up.share(value)) * tall
        parts.append(_text(_LEFT - 8, y + 4, f"{value:.3g}", "end"))
    front = sorted(place(d) for d in dots if d.mark in ("front", "chosen"))
    if len(front) > 1:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in front)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{_COLOURS["front"]}" '
            'stroke-dasharray="4 3"/>'
        )
    for mark in _ORDER:
        for dot in (d for d in dots if d.mark == mark):
            x, y = place(dot)
            size = 6 if mark == "chosen" else 4
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{_COLOURS[mark]}">'
                f"<title>{escape(dot.label)}: {dot.x:.4g}, {dot.y:.4g}</title></circle>"
            )
            if mark == "chosen":  # towards the middle, so that no label leaves the picture
                left = x < _LEFT + inner / 2
                beside = (x + 10, "start") if left else (x - 10, "end")
                parts.append(_text(beside[0], y - 8, dot.label, beside[1], bold=True))
    return parts


def _legend() -> list[str]:
    parts = []
    for at, mark in enumerate(reversed(_ORDER)):
        x, y = _LEFT + 90 * at, _HIGH - 16
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{_COLOURS[mark]}"/>')
        parts.append(_text(x + 10, y, mark, "start"))
    return parts


def _text(x: float, y: float, words: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
