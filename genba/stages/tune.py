"""Change a parameter of a package while it is in service: an event with its evidence."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from genba.core import tuning
from genba.core.codec import encode, nearest
from genba.core.problem import Problem
from genba.core.values import Event, Manifest, Measure, Tensor
from genba.learn.proportion import wilson
from genba.store.home import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A parameter of a package and the value that holds now."""

    name: str
    value: float
    default: float
    unit: str = ""
    reason: str = ""  # why it has this value; empty while it is as packaged
    by: str = ""
    time_ms: int | None = None  # since when


def parameters(store: Store, package: str, manifest: Manifest) -> tuple[Parameter, ...]:
    """Return the parameters of a package as they hold now, in the order of its signature.

    Args:
        store: Where the ledger is.
        package: Its id.
        manifest: Of the package.
    """
    newest: dict[str, Event] = {}
    for event in store.ledger.events(line=manifest.line, kinds=(tuning.KIND,)):
        if event.subject == package:
            newest[str(event.body.get("parameter"))] = event
    return tuple(
        _parameter(tensor, newest.get(tensor.name))
        for tensor in manifest.signature.inputs
        if tensor.role == "parameter"
    )


def _parameter(tensor: Tensor, event: Event | None) -> Parameter:
    default = float(tensor.default or 0.0)
    body: Mapping[str, Any] = event.body if event else {}
    return Parameter(
        name=tensor.name,
        value=float(body.get("value", default)),
        default=default,
        unit=tensor.unit,
        reason=str(body.get("reason", "")),
        by=str(body.get("by", "")),
        time_ms=event.time_ms if event else None,
    )


def values(store: Store, package: str, manifest: Manifest) -> dict[str, float]:
    """Return the values of a package's parameters as they hold now."""
    return {p.name: p.value for p in parameters(store, package, manifest)}


def estimate(manifest: Manifest, name: str, value: float) -> tuple[str, Measure] | None:
    """Estimate what a value does, from the scores of good samples seen at calibration.

    A package may say in `settings["calibration"]`: the `parameter` it is about, the `measure` it
    decides, and the `quantiles` of the calibration scores on the scale of the parameter, of so
    many `units`. The share of them above the value is what the measure will be, with the interval
    of Wilson (1927).

    Args:
        manifest: Of the package.
        name: Of the parameter.
        value: To be judged.

    Returns:
        Name and estimate of the measure; None where the package says nothing about it.
    """
    known: Mapping[str, Any] = manifest.settings.get("calibration") or {}
    scores = np.asarray(known.get("quantiles") or (), dtype=np.float64)
    if known.get("parameter") != name or not len(scores):
        return None
    units = int(known.get("units") or len(scores))
    share = float(np.mean(scores > value))
    low, high = wilson(share, units)
    found = Measure(value=share, low=low, high=high, method="estimated", n=units)
    return str(known.get("measure") or "alarms"), found


def tune(
    store: Store,
    manifest: Manifest,
    package: str,
    change: Mapping[str, float],
    *,
    reason: str,
    by: str,
) -> tuple[Event, ...]:
    """Set parameters of a package. A server that has it in memory follows within a second.

    Args:
        store: Where the ledger is.
        manifest: Of the package.
        package: Its id.
        change: New values by name.
        reason: Why; kept in the ledger.
        by: Who: a person or a part of Genba.

    Returns:
        One event for each parameter, with the estimate as its evidence where there is one.

    Raises:
        Problem: G551 for a name that the package does not have, G552 for a value that it cannot
            have.
    """
    for name, value in change.items():
        _check(manifest, name, value)
    before = values(store, package, manifest)
    events = []
    for name, value in change.items():
        evidence: dict[str, Any] = {"before": before[name]}
        if found := estimate(manifest, name, value):
            evidence[found[0]] = encode(found[1])
        body = {"parameter": name, "value": value, "reason": reason, "by": by, "evidence": evidence}
        events.append(store.ledger.append(tuning.KIND, body, line=manifest.line, subject=package))
    return tuple(events)


def unknown(manifest: Manifest, name: str) -> Problem:
    """Return the problem of a name that no parameter of a package has."""
    known = [t.name for t in manifest.signature.inputs if t.role == "parameter"]
    near = nearest(name, known)
    return Problem(
        "G551",
        f"The package has no parameter {name!r}" + (f"; did you mean {near}?" if near else "."),
        where=manifest.line,
        why=f"It has: {', '.join(known)}." if known else "It has none that can be changed.",
        tries=[f"genba tune {manifest.line}"],
    )


def _check(manifest: Manifest, name: str, value: float) -> None:
    defaults = tuning.defaults(manifest.signature)
    if name not in defaults:
        raise unknown(manifest, name)
    default = defaults[name]
    if math.isfinite(np.float32(value)) and (value > 0 or default <= 0):
        return
    sense = ", and only numbers above 0 make sense in its place." if default > 0 else "."
    raise Problem(
        "G552",
        f"{name} cannot be {value:g}.",
        where=manifest.line,
        why=f"It was packaged as {default:g}{sense}",
        tries=[f'genba tune {manifest.line} {name} {default:g} --reason "as packaged"'],
    )
