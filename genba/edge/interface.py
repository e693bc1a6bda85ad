"""What a device must be given and what it gets back: names, units, order, rate, limits, staleness.

A signature says what tensors a graph takes. An interface says what a reading of a machine is: which
fields it has, in which order they stand in a tensor, how often one comes, from when on it is too
old, and between which values it makes sense. `limit` is what the line's checks state, `seen` is
what the data held that the model has learned from.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from genba.core.codec import decode, encode
from genba.core.problem import Problem

FORMAT: Final = 1
INTERFACE_FILE: Final = "interface.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A range of values; an end that is None is open."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One value of a reading."""

    name: str
    role: Literal["input", "output", "known"]  # output: what is predicted; known: ahead of time too
    unit: str = ""  # "" where nobody stated one
    required: bool = False
    limit: Span = field(default_factory=Span)  # declared: [data.checks]; outside counts as missing
    seen: Span = field(default_factory=Span)  # measured: of the data the model was made from
    usual: Span = field(default_factory=Span)  # measured: its 1 % and 99 % quantiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """A tensor of the graph, and what stands along it."""

    name: str
    datatype: str
    shape: tuple[int, ...]  # -1 for the batch
    role: str  # see genba.core.values.ROLES
    unit: str = ""
    fields: tuple[str, ...] = ()  # along the last axis, in this order; () where it has none
    steps: int = 0  # along the second axis, oldest first; 0 where there is no such axis
    default: float | None = None  # of a parameter that is left out


@dataclass(frozen=True, kw_only=True, slots=True)
class Interface:
    """The contract between a package and the machine it stands at.

    Example:
        >>> port = Port(name="window", datatype="FP32", shape=(-1, 3, 1), role="feature",
        ...             fields=("flow",), steps=3)
        >>> made = Interface(line="pump", package="ab", inputs=(port,), outputs=(),
        ...                  fields=(Field(name="flow", role="input", unit="l/s"),))
        >>> read_interface(encode_interface(made)) == made
        True
    """

    format: int = FORMAT
    line: str
    package: str  # id
    fields: tuple[Field, ...] = ()  # of a reading; () where a reading is an image or a text
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    classes: tuple[str, ...] = ()  # what the numbers of an output `class` mean
    time: str | None = None  # how the time of a reading is called in the line's data
    entity: str | None = None  # how the entity is called there
    entities: tuple[str, ...] = ()  # those that the model knows; others get its pooled limits
    step_ms: int | None = None  # from one reading of an entity to the next; None: no clock
    stale_ms: int | None = None  # a reading older than this is no reading
    tolerance_ms: int | None = None  # how far off its step a reading may be
    deadline_ms: float | None = None  # of one prediction: the line's limit on its p99


def encode_interface(interface: Interface) -> bytes:
    """Return an interface as it is written to `interface.json`."""
    text = json.dumps(encode(interface), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def read_interface(data: bytes) -> Interface:
    """Return the interface that a file holds.

    Raises:
        Problem: G670 when it is none, G603 when a newer version wrote it.
    """
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(str(error)) from error
    version = body.get("format") if isinstance(body, dict) else None
    if version != FORMAT:
        raise Problem(
            "G603",
            f"{INTERFACE_FILE} has format {version!r}; this version reads format {FORMAT}.",
            where=INTERFACE_FILE,
            tries=["pip install --upgrade runtime/genba_edge-*.whl", "genba explain G603"],
        )
    try:
        return decode(Interface, body)
    except Problem as problem:
        raise _damaged(problem.what) from problem


def _damaged(why: str) -> Problem:
    return Problem(
        "G670",
        f"{INTERFACE_FILE} is damaged.",
        where=INTERFACE_FILE,
        why=why,
        tries=["fetch the release again", "genba explain G670"],
    )
