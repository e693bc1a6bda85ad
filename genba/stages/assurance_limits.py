"""What a line may say in `[safety]`, checked: limits by name, cells that are accepted."""

from collections.abc import Collection, Mapping
from typing import Final

from genba.core.codec import nearest
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.values import Signature

#: What `[safety] limits` may say besides a cell of the matrix, and what holds where it does not.
KNOBS: Final[Mapping[str, float]] = {
    "false_trips": 0.02,  # share of clean readings that may be withheld
    "critical": 0.05,  # upper bounds of failure rates, by how bad it is
    "major": 0.10,
    "minor": 0.20,
    "abstain": 0.0,  # share of answers that may be withheld because they are unsure
    "stale_ms": 0.0,  # 0: derived
    "deadline_ms": 0.0,
    "react": 0.0,  # readings within which a fault must be noticed
}
_FALSE_IMAGES: Final = 0.05  # of images there are too few to promise less
_LAST: Final = ("fixed", "abstain", "stop")  # ways that share nothing with the model's input


def knob(line: Line, name: str, modality: str = "table") -> float:
    """Return a limit of the line, else what holds where it says nothing.

    Example:
        >>> from genba.core.line import Data
        >>> knob(Line(name="a", task="t", data=Data(source="files:a")), "critical")
        0.05
    """
    if name in line.safety.limits:
        return float(line.safety.limits[name])
    if name == "false_trips" and modality == "image":
        return _FALSE_IMAGES
    return KNOBS[name]


def check_words(line: Line, faults: Collection[str]) -> None:
    """Refuse limits and accepted cells that name nothing: they would guard, or excuse, nothing.

    Args:
        line: With its table `[safety]`.
        faults: Names of the cells, and the part before their colon.

    Raises:
        Problem: G598 with the nearest name.
    """
    known = sorted({*faults, *(cell.partition(":")[0] for cell in faults)})
    for where, names, right in (
        ("limits", line.safety.limits, [*KNOBS, *known]),
        ("accept", line.safety.accept, ["false_trips", *known]),
    ):
        for name in names:
            if name not in right:
                near = nearest(name, right)
                raise Problem(
                    "G598",
                    f"safety.{where} names {name!r}, which is no limit and no cell of this line"
                    + (f"; did you mean {near}?" if near else "."),
                    where=f"safety.{where}",
                    why=f"There are: {', '.join(right)}.",
                    tries=[f"genba safety {line.name}", "genba explain G598"],
                )


def check_fallback(line: Line, signature: Signature, *, sensors: int) -> None:
    """Refuse a chain that cannot answer, or whose end shares what has failed.

    Raises:
        Problem: G597 saying what it shares.
    """
    chain = line.safety.fallback
    if chain and chain[-1] not in _LAST:
        raise _shared(line, f"It ends with {chain[-1]}, which reads the sensors that may fail.")
    if "rule" in chain and sensors < 2:
        what = "one sensor" if sensors else "the camera"
        raise _shared(line, f"A rule would read {what} that the model reads, and nothing else.")
    if "fixed" in chain and not line.safety.value:
        raise _shared(line, "The fallback fixed has no value.", tries=["value = { alarm = 1 }"])
    outputs = [t.name for t in signature.outputs]
    for name in line.safety.value:
        if name not in outputs:
            raise _shared(line, f"safety.value names {name}; the outputs are {', '.join(outputs)}.")


def _shared(line: Line, why: str, tries: tuple[str, ...] | list[str] = ()) -> Problem:
    chain = ", ".join(line.safety.fallback) or "not stated"
    return Problem(
        "G597",
        "The fallback of this line cannot stand in for its model.",
        where=f"safety.fallback = {chain}",
        why=why,
        tries=[*tries, 'fallback = ["rule", "abstain"]  # ends with fixed, abstain or stop',
               "genba explain G597"],
    )  # fmt: skip


def limit_of(line: Line, cell: str, severity: str) -> float:
    """Return the upper bound that a cell may have: its own, that of its fault, of its severity."""
    stated = line.safety.limits
    for name in (cell, cell.partition(":")[0]):
        if name in stated:
            return float(stated[name])
    return knob(line, severity)


def accepted(line: Line, cell: str) -> bool:
    """Say whether the line accepts the risk of a cell.

    Example:
        >>> from genba.core.line import Data, Safety
        >>> line = Line(name="a", task="t", data=Data(source="files:a"),
        ...             safety=Safety(accept=("bias",)))
        >>> accepted(line, "bias:flow"), accepted(line, "stuck:flow")
        (True, False)
    """
    return cell in line.safety.accept or cell.partition(":")[0] in line.safety.accept
