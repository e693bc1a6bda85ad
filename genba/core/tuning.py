"""Parameters of a package that were changed while it was in service: a fold over `tune` events.

A parameter is an input of the graph with the role `parameter`. Changing it needs no new package:
the event names package, parameter, value, who, why and on which evidence.
"""

from collections.abc import Iterable, Mapping

from genba.core.values import Event, Signature

KIND = "tune"


def defaults(signature: Signature) -> dict[str, float]:
    """Return the parameters of a package as they were packaged.

    Example:
        >>> from genba.core.values import Tensor
        >>> bar = Tensor(name="bar", datatype="FP32", shape=(-1,), role="parameter", default=1.0)
        >>> defaults(Signature(inputs=(bar,), outputs=()))
        {'bar': 1.0}
    """
    return {t.name: float(t.default or 0.0) for t in signature.inputs if t.role == "parameter"}


def fold(events: Iterable[Event]) -> dict[str, Mapping[str, float]]:
    """Return the parameters that were set, newest value each, by package.

    Args:
        events: Of kind `tune`, oldest first: subject = package, body = {"parameter", "value",
            "reason", "by", "evidence"}.
    """
    found: dict[str, dict[str, float]] = {}
    for event in events:
        if event.kind == KIND:
            found.setdefault(event.subject, {})[str(event.body["parameter"])] = float(
                event.body["value"]
            )
    return dict(found)
