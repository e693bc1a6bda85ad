"""One prediction of a device, from JSON to the columns of a capture."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.store.captures import ERROR, NOT_A_NUMBER, OK, CapturedRows, Interval

ROLES: Final = ("stable", "canary", "shadow")
_DTYPES: Final = {"BOOL": np.bool_, "INT64": np.int64, "INT32": np.int32, "FP64": np.float64}
_NOT_FEATURES: Final = ("entity", "time")
_NOT_KEPT: Final = ("map", "mask")
_MOST: Final = 1 << 53


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A prediction that can be captured."""

    n: int
    package: str
    role: str
    time_ms: int
    entity: str | None
    latency_us: int
    features: Mapping[str, Array]  # one row each, without the batch
    outputs: Mapping[str, Array]  # empty where the model gave none
    alarm: bool
    finite: bool

    @property
    def asked(self) -> int:
        """How many of the inputs are known."""
        return len(self.features)


def read_row(body: Mapping[str, Any], package: Mapping[str, Any] | None, kind: str) -> Row:
    """Read a prediction.

    Args:
        body: As a device sends it.
        package: Manifest of the package that answered; None for one that is not of this line.
        kind: "prediction" or "sample".

    Raises:
        Problem: G689 for what cannot be a prediction of that package.
    """
    if package is None:
        raise _odd(f"No package {str(body.get('package'))[:16]!r} was made for this line here.")
    signature: Mapping[str, Any] = package["signature"]
    number, role = body.get("n"), str(body.get("role", "stable"))
    if not isinstance(number, int) or not 0 <= number < _MOST or role not in ROLES:
        raise _odd(f"A {kind} has a number and a role; this has {number!r} and {role!r}.")
    inputs = [t for t in signature["inputs"] if t.get("role") not in _NOT_FEATURES]
    outputs = [t for t in signature["outputs"] if t.get("role") not in _NOT_KEPT]
    given, said = body.get("features") or {}, body.get("outputs") or {}
    features = {t["name"]: _tensor(t, given[t["name"]]) for t in inputs if t["name"] in given}
    told = {t["name"]: _tensor(t, said[t["name"]]) for t in outputs if t["name"] in said}
    return Row(
        n=number,
        package=str(body["package"]),
        role=role,
        time_ms=_whole(body.get("time_ms")),
        entity=None if body.get("entity") in (None, "") else str(body["entity"]),
        latency_us=_whole(body.get("latency_us")),
        features=features,
        outputs=told,
        alarm=any(bool(told[t["name"]].any()) for t in outputs if _is_alarm(t, told)),
        finite=all(bool(np.isfinite(v).all()) for v in told.values() if v.dtype.kind == "f"),
    )


def as_interval(rows: Sequence[Row], *, counted: bool = True) -> Interval:
    """Return rows as one capture.

    Args:
        rows: At least one.
        counted: Whether they are new; what is only more of a prediction that was counted is not.
    """
    return Interval(
        from_ms=min(row.time_ms for row in rows),
        to_ms=max(row.time_ms for row in rows) + 1,
        packages={
            package: _summary([row for row in rows if row.package == package] if counted else [])
            for package in dict.fromkeys(row.package for row in rows)
        },
        rows=list(_blocks(rows)),
    )


def _blocks(rows: Sequence[Row]) -> Iterator[CapturedRows]:
    """Yield one block for rows of one package with the same columns."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        shape = tuple((name, v.shape, v.dtype.kind) for name, v in row.features.items())
        key = row.package, shape, tuple(row.outputs)
        groups.setdefault(key, []).append(row)
    for group in groups.values():
        first = group[0]
        yield CapturedRows(
            package=first.package,
            n=np.array([row.n for row in group], dtype=np.int64),
            received_ms=np.array([row.time_ms for row in group], dtype=np.int64),
            role=[row.role for row in group],
            entity=[row.entity for row in group],
            time=[row.time_ms for row in group],
            latency_us=np.array([row.latency_us for row in group], dtype=np.int64),
            status=[_status(row) for row in group],
            features={n: _stack([row.features[n] for row in group]) for n in first.features},
            outputs={n: _stack([row.outputs[n] for row in group]) for n in first.outputs},
        )


def _status(row: Row) -> str:
    if not row.outputs:
        return ERROR
    return OK if row.finite else NOT_A_NUMBER


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "role": rows[-1].role if rows else "stable",
        "n": len(rows),
        "errors": sum(not row.outputs for row in rows),
        "not_a_number": sum(not row.finite for row in rows),
        "alarms": sum(row.alarm for row in rows),
        # Of the device, which has a deadline of its own: the limits of a server are not for it.
        "latency_ms_p50": 0.0,
        "latency_ms_p99": 0.0,
        "cpu_seconds": 0.0,  # spent on the device, which does not bill this factory
    }


def _tensor(declared: Mapping[str, Any], value: Any) -> Array:
    """Return one row of a tensor; pixels come as the bytes of their file."""
    name = str(declared["name"])
    if declared.get("role") == "image" or declared["datatype"] == "BYTES":
        return np.array(_bytes(name, value, declared.get("role") == "image"), dtype=object)
    dtype: Any = _DTYPES.get(str(declared["datatype"]), np.float32)
    # JSON has no NaN; a device sends null where a number is missing.
    plain = [np.nan if v is None else v for v in _flat(value)]
    shape = tuple(declared["shape"])[1:]
    try:
        flat = np.array(plain).astype(dtype)
        return flat.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise _odd(f"{name} does not have the shape {list(shape)}.") from error


def _bytes(name: str, value: Any, encoded: bool) -> bytes:
    if not isinstance(value, str):
        raise _odd(f"{name} is not sent as text.")
    if not encoded:
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _odd(f"{name} is not base64.") from error


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for inner in value:
            yield from _flat(inner)
    elif value is None or isinstance(value, (bool, int, float)):
        yield value
    else:
        raise _odd(f"{str(value)[:40]!r} is no number.")


def _stack(rows: Sequence[Array]) -> Array:
    if rows[0].dtype == object:
        made = np.empty(len(rows), dtype=object)
        made[:] = [row.item() for row in rows]
        return made
    return np.stack(rows)


def _is_alarm(declared: Mapping[str, Any], told: Mapping[str, Array]) -> bool:
    return declared.get("role") == "alarm" and declared["name"] in told


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and abs(value) < _MOST else 0


def _odd(what: str) -> Problem:
    return Problem("G689", what, tries=["genba edge devices", "genba explain G689"])
