"""What can be chosen at all: runtimes, precisions, forms of the graph, threads, streams, batches.

The space is what the runtimes say of themselves, whatever the machine: that a choice makes no sense
there is a rule's business (`genba.codesign.rules`), so that a reader sees what was left out and
why. The simplest settings of every runtime come first; of points that nothing tells apart, the one
that was offered first is chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, runtime_checkable

from genba.codesign.values import AS_EXPORTED, AS_TRAINED, Point
from genba.core.protocols import JsonObject, Lowers

#: Rows of one call that are worth trying, beside one: a handful of images, a block of a table.
BATCHES: Final = {"image": (1, 8), "table": (1, 64)}
_LAST: Final = 1_000  # lowered graphs come after every setting of the graph as exported


@runtime_checkable
class Wide(Protocol):
    """An engine that says all it can vary, not only what a run tries; optional."""

    @classmethod
    def space(cls, cores: int) -> Sequence[JsonObject]:
        """Return every setting of the graph as exported, the simplest first.

        Args:
            cores: Of the target. What needs more may be returned too; a rule leaves it out.
        """
        ...

    @classmethod
    def forms(cls) -> Mapping[str, Sequence[JsonObject]]:
        """Return the settings to try by the name of the lowering they are for."""
        ...


def narrow(engines: Mapping[str, Any], cores: int) -> list[Point]:
    """Return what a run tries: the few settings each runtime recommends, in batches of one.

    Args:
        engines: Name -> class.
        cores: Of the target.
    """
    offers = [
        (place, Point(engine=name, settings=settings))
        for name, kind in engines.items()
        for place, settings in enumerate(kind.candidates(cores))
    ]
    offers += [
        (_LAST, Point(engine=name, settings=settings, form=form))
        for name, kind in engines.items()
        for form, settings in (kind.lowered().items() if isinstance(kind, Lowers) else ())
    ]
    # The simplest settings of every engine come first, then the second of each, and so on.
    return [point for _, point in sorted(offers, key=lambda offer: offer[0])]


def wide(
    engines: Mapping[str, Any],
    cores: int,
    *,
    batches: Sequence[int] = (1,),
    variants: Sequence[str] = (AS_TRAINED,),
) -> list[Point]:
    """Return everything that can be chosen.

    Args:
        engines: Name -> class.
        cores: Of the target.
        batches: Rows of one call.
        variants: Of the model; "" is the one the line asks for.
    """
    one = narrow(engines, cores)
    for name, kind in engines.items():
        if not isinstance(kind, Wide):
            continue
        one += [Point(engine=name, settings=s) for s in kind.space(cores)]
        one += [
            Point(engine=name, settings=settings, form=form)
            for form, several in kind.forms().items()
            for settings in several
        ]
    many = [
        replace(point, batch=batch, variant=variant)
        for variant in variants
        for batch in batches
        for point in one
    ]
    return list({point.id: point for point in many}.values())


def with_form(points: Sequence[Point]) -> list[str]:
    """Return the names of the lowerings that some point asks for."""
    return list(dict.fromkeys(p.form for p in points if p.form != AS_EXPORTED))
