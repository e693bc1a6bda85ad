"""Predictions as people read them: by what the outputs are for, whatever the task."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import RenderableType

from genba.core.values import Manifest, Tensor
from genba.edge.texts import messages_of, question_of
from genba.ui.cli.answer import facts, heading, table
from genba.ui.cli.figures import number, short, when

_SHOWN: Final = 12
_STEPS: Final = 8  # of a forecast
_SERIES: Final = 3
Row = Mapping[str, Any]


class Reading:
    """Knows which output of a package says what."""

    def __init__(self, manifest: Manifest, classes: Sequence[str]) -> None:
        self.classes = classes
        self.text = next((t.name for t in manifest.signature.inputs if t.role == "text"), None)
        self.step_ms = manifest.settings.get("step_ms")
        self.series = tuple(str(n) for n in manifest.settings.get("outputs") or ())
        self.outputs: dict[str, Tensor] = {}
        for tensor in manifest.signature.outputs:
            self.outputs.setdefault(tensor.role, tensor)

    @property
    def ahead(self) -> bool:
        """Whether there is an expected value for each of several steps."""
        return "expected" in self.outputs and len(self.outputs["expected"].shape) > 2

    def value(self, row: Row, role: str) -> Any:
        """Return what a row says in a role, None when nothing."""
        tensor = self.outputs.get(role)
        return None if tensor is None else row.get(tensor.name)

    def asked(self, tensors: Mapping[str, Any], index: int) -> str | None:
        """Return the question of a sample, None where packages are not asked in words."""
        if self.text is None:
            return None
        return question_of(messages_of(tensors[self.text][index]))

    def class_of(self, row: Row) -> str | None:
        """Return the class in words; "unsure" where the model abstains."""
        index = self.value(row, "class")
        if index is None:
            return None
        if index < 0:
            return "unsure"
        return self.classes[index] if index < len(self.classes) else str(index)

    def columns(self) -> list[str]:
        """Return the heads of what every row has."""
        order = ("score", "alarm", "class", "probability", "expected")
        return [
            role
            for role in order
            if role in self.outputs and not (role == "expected" and self.ahead)
        ]

    def cell(self, row: Row, role: str) -> str:
        """Write what a row says in a role."""
        value = self.value(row, role)
        if role == "alarm":
            return "ALARM" if value else ""
        if role == "class":
            return self.class_of(row) or "-"
        if role == "probability" and isinstance(value, list):
            value = max((v for v in value if v is not None), default=None)
        if not isinstance(value, (int, float)):
            return "-"
        unit = self.outputs[role].unit
        text = f"{number(value)} {unit}".rstrip()
        low, high = self.value(row, "low"), self.value(row, "high")
        if role == "expected" and isinstance(low, float) and isinstance(high, float):
            text += f" [{number(low)} to {number(high)}]"
        return text


def strongest(plain: Sequence[Row], reading: Reading) -> list[Row]:
    """Return what to look at first: alarms by score; else the newest of each entity, then all."""
    alarms = [row for row in plain if reading.value(row, "alarm") is True]
    if alarms:
        return sorted(alarms, key=lambda row: -float(reading.value(row, "score") or 0.0))
    newest = {row["entity"]: row for row in plain if row["entity"] is not None}
    if not newest:
        return list(plain)
    chosen = {id(row) for row in newest.values()}
    return [*newest.values(), *(row for row in plain if id(row) not in chosen)]


def blocks(
    name: str, plain: Sequence[Row], reading: Reading, told: Sequence[tuple[str, str]]
) -> list[RenderableType]:
    """Return predictions as blocks.

    Args:
        name: Of the line.
        plain: Every prediction, as in the JSON.
        reading: Knows the outputs.
        told: More facts, such as where everything was written.
    """
    alarms = sum(reading.value(row, "alarm") is True for row in plain)
    title = f"{name}: {number(len(plain))} prediction{'s' * (len(plain) != 1)}"
    if "alarm" in reading.outputs:
        title += f", {number(alarms)} alarm{'s' * (alarms != 1)}"
    first = strongest(plain, reading)
    shown: list[RenderableType] = [heading(title, mark="wait" if alarms else "yes")]
    if "text" in reading.outputs:
        for row in first[:_SHOWN]:
            shown.append(facts(_conversation(row, reading)))
    elif reading.columns():
        what = "the strongest alarms" if alarms else "the newest of each, then the others"
        if len(plain) > _SHOWN:
            shown.append(facts([("shown", what)]))
        shown.append(_table(first[:_SHOWN], reading))
    if reading.ahead:
        for row in first[:_SERIES]:
            shown += _forecast(row, reading)
    packages = ", ".join(short(p) for p in dict.fromkeys(row["package"] for row in plain))
    shown.append(facts([("package", packages), *told]))
    return shown


def _table(rows: Sequence[Row], reading: Reading) -> RenderableType:
    about = [
        head
        for head, known in (
            ("file", any(r.get("file") for r in rows)),
            ("entity", any(r["entity"] for r in rows)),
            ("time", any(r["time_ms"] is not None for r in rows)),
        )
        if known
    ]
    cells = [
        [
            str(row["prediction"] or f"row {row['row']}"),
            *(_about(row, head) for head in about),
            *(reading.cell(row, role) for role in reading.columns()),
        ]
        for row in rows
    ]
    heads = ["prediction", *about, *reading.columns()]
    right = ("score", "probability", "expected")
    return table(heads, cells, right=right, whole=("prediction",))


def _conversation(row: Row, reading: Reading) -> list[tuple[str, str]]:
    """Return a question, its answer, and who gave it from what."""
    said = reading.value(row, "confidence")
    sure = f"{100 * math.exp(said):.0f} % per token" if isinstance(said, float) else "-"
    pairs = [
        ("asked", str(row.get("question") or "")),
        ("answer", str(reading.value(row, "text") or "(nothing)")),
        ("sure", sure),
    ]
    if (by := row.get("by")) not in (None, "model"):
        pairs.append(("by", str(by)))
    if (sources := row.get("sources")) not in (None, "", "[]"):
        pairs.append(("sources", str(sources)))
    return [("prediction", str(row["prediction"] or f"row {row['row']}")), *pairs]


def _about(row: Row, head: str) -> str:
    if head == "time":
        return "-" if row["time_ms"] is None else when(int(row["time_ms"]))
    return str(row.get(head) or "-")


def _forecast(row: Row, reading: Reading) -> list[RenderableType]:
    """Return the first steps of a forecast and its last."""
    expected = _steps(reading.value(row, "expected"))
    low, high = (_steps(reading.value(row, role)) for role in ("low", "high"))
    shown = sorted({*range(min(_STEPS, len(expected))), len(expected) - 1})
    series = reading.series if len(reading.series) == len(expected[0]) else ("expected",)
    cells = []
    for at in shown:
        values = [
            _interval(value, low[at][i] if low else None, high[at][i] if high else None)
            for i, value in enumerate(expected[at][: len(series)])
        ]
        cells.append([_when(row, at + 1, reading), *values])
    pairs = [("prediction", str(row["prediction"] or f"row {row['row']}"))]
    if row["entity"]:
        pairs.append(("entity", str(row["entity"])))
    if row["time_ms"] is not None:
        pairs.append(("made at", when(int(row["time_ms"]))))
    if len(shown) < len(expected):
        pairs.append(("shown", f"{len(shown)} of {len(expected)} steps"))
    return [facts(pairs), table(["for", *series], cells, right=series)]


def _steps(values: Any) -> list[list[float | None]]:
    """Return [steps][series] of what may be a flat list."""
    if values is None:
        return []
    rows = values if isinstance(values, list) else [values]
    return [row if isinstance(row, list) else [row] for row in rows]


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    text = number(value)
    return text if low is None or high is None else f"{text} [{number(low)} to {number(high)}]"


def _when(row: Row, step: int, reading: Reading) -> str:
    if row["time_ms"] is None or not reading.step_ms:
        return f"step {step}"
    return when(int(row["time_ms"]) + step * int(reading.step_ms))


def as_csv(plain: Sequence[Row]) -> str:
    """Return every prediction as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(plain[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return text.getvalue()
