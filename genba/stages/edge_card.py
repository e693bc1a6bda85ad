"""The card of a release, for a person: what it is for, how good it is, where it ends."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genba.core.codec import decode
from genba.core.values import Measure
from genba.edge.interface import Field, Interface, Port, Span
from genba.edge.release import Statement

Card = Mapping[str, Any]


def card_text(card: Card, stated: Statement, interface: Interface, key: str) -> str:
    """Return the card of a release as Markdown.

    Args:
        card: Of the package.
        stated: The release.
        interface: Of the package.
        key: Fingerprint of the key that signs the release.
    """
    parts = [
        f"# {stated.line}, release {stated.release}",
        f"{_value(card, 'purpose')}. Made for the target {stated.target} "
        f"({stated.standing} there), package `{stated.package}`.",
        "## How good it is",
        "On the test set, with 95 % intervals; how each number is known stands behind it.",
        _table(("measure", "value", "known"), _measures(_value(card, "measures") or {})),
        "## What it costs",
        f"One prediction with {stated.engine.name}, on {stated.target}.",
        _table(("measure", "value", "known"), _costs(stated)),
        "## What it takes",
        _takes(interface),
        "## What it gives",
        _table(
            ("output", "type", "shape", "meaning"),
            (
                (
                    _code(p.name),
                    p.datatype,
                    _code(str(list(p.shape))),
                    ", ".join(p.fields) or p.role,
                )
                for p in interface.outputs
            ),
        ),
        "## What it was made from",
        _data(card),
        "## Where it ends",
        str(_value(card, "limits", "outside")),
        "## Before it is used",
        "\n".join(
            [
                "```console",
                f"$ pip install numpy onnxruntime cryptography runtime/{stated.runtime}",
                "$ genba-edge trust KEY.pem",
                "$ genba-edge verify .",
                "$ genba-edge self-test .",
                "```",
            ]
        ),
        f"The key has the fingerprint `{key}`. A key that came in the same folder proves nothing: "
        "get it, or compare its fingerprint, on another way.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _measures(measures: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, body in sorted(measures.items()):
        measure = decode(Measure, body)
        yield _code(name), _number(measure), measure.method


def _costs(stated: Statement) -> Iterable[tuple[str, ...]]:
    for name, measure in sorted(stated.measures.items()):
        yield _code(name), _number(measure), measure.method
    if stated.deadline_ms is not None:
        yield "deadline (p99)", f"{stated.deadline_ms:g} ms", "declared"


def _takes(interface: Interface) -> str:
    if not interface.fields:
        ports = ((_code(p.name), p.datatype, _shape(p), p.role) for p in interface.inputs)
        return _table(("input", "type", "shape", "meaning"), ports)
    rate = ""
    if interface.step_ms:
        stale = interface.stale_ms
        late = f"; older than {stale / 1_000:g} s it is none" if stale else ""
        rate = f"One reading every {interface.step_ms / 1_000:g} s{late}.\n\n"
    rows = (_field_row(field) for field in interface.fields)
    return rate + _table(("field", "role", "unit", "allowed", "seen"), rows)


def _shape(port: Port) -> str:
    return _code(str(list(port.shape)))


def _field_row(field: Field) -> tuple[str, ...]:
    unit = field.unit or "not stated"
    return _code(field.name), field.role, unit, _span(field.limit), _span(field.seen)


def _span(span: Span) -> str:
    if span.min is None and span.max is None:
        return "any"
    low = "…" if span.min is None else f"{span.min:g}"
    return f"{low} to {'…' if span.max is None else f'{span.max:g}'}"


def _data(card: Card) -> str:
    facts = _value(card, "data", "facts") or {}
    rows = [
        ("source", str(_value(card, "data", "source"))),
        ("rows", f"{_value(card, 'data', 'rows'):,}"),
    ]
    rows += [(n, str(facts[n])) for n in ("licence", "attribution", "fingerprint") if facts.get(n)]
    return _table(("fact", "value"), rows)


def _number(measure: Measure) -> str:
    text = f"{measure.value:.4g}{f' {measure.unit}' if measure.unit else ''}"
    if measure.low is None or measure.high is None:
        return text
    return f"{text} [{measure.low:.4g} to {measure.high:.4g}]"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`"


def _value(card: Card, *path: str) -> Any:
    found: Any = card
    for name in path:
        found = found.get(name, {})
    return found.get("value")
