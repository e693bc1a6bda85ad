"""`genba feedback` and `genba label`: what people know, and what is worth asking them."""

import getpass
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from cyclopts import Parameter
from rich.console import RenderableType

from genba.core.problem import Problem
from genba.data.feedback import FeedbackReport, queue, read_csv, receive
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import moment, number
from genba.ui.cli.lookup import LAST, known_line, newest_prediction, open_home
from genba.ui.cli.options import DEFAULT, Options

_SHOWN: Final = 8
_OUTCOMES: Final = {
    "accepted": "joined to a prediction; a value counts as a label",
    "late": "joined, but old: teaches, triggers nothing",
    "duplicate": "said before by the same person",
    "contradictory": "two people disagree; counts for neither",
    "unknown": "no prediction fits; kept in case it arrives",
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One thing that one person says about one prediction."""

    prediction: str = ""
    """Id of the prediction, or "last"; or give --entity and --time instead."""

    entity: str = ""
    """Which machine."""

    time: str = ""
    """When: ISO 8601, UTC where no offset is given."""

    value: str = ""
    """What was true, such as anomaly or normal."""

    author: str = ""
    """Who says so (default: your login name)."""

    comment: str = ""
    """In words."""

    @property
    def row(self) -> dict[str, str]:
        """What was given, as a row of feedback."""
        given = {key: value for key, value in asdict(self).items() if value}
        return {**given, "author": self.author or getpass.getuser()} if given else {}


NOTHING: Final = Said()


def feedback(
    name: str,
    /,
    *,
    file: Path | None = None,
    said: Said = NOTHING,
    options: Options = DEFAULT,
) -> Answer:
    """Tell a line what was true.

    Args:
        name: The line.
        file: CSV with the columns prediction, or entity and time; value; author; comment.
        said: One thing, instead of a file.
        options: Common options.
    """
    says_something = bool(said.value or said.comment)
    if (file is None) != says_something or (file and said.row):
        raise Problem(
            "G110",
            "Give either --file, or one thing with --prediction and --value or --comment.",
            tries=[
                f"genba feedback {name} --file labels.csv",
                f"genba feedback {name} --prediction ID --value anomaly --author me",
            ],
        )
    with open_home(options) as store:
        line = known_line(store, name)
        if said.prediction == LAST:
            said = replace(said, prediction=newest_prediction(store, line.name))
        rows: Iterable[Mapping[str, Any]] = read_csv(file) if file else [said.row]
        report = receive(store, line.name, rows, source="csv" if file else "cli")
    return Answer(
        data={"line": name, **asdict(report), "rows": report.rows},
        blocks=_blocks(name, report),
        next=(f"genba status {name}", f"genba label {name}"),
        exit_code=1 if report.rows == len(report.rejected) else 0,
    )


def _blocks(name: str, report: FeedbackReport) -> list[RenderableType]:
    good = report.rows - len(report.rejected)
    title = f"{name}: {number(good)} of {number(report.rows)} rows of feedback kept"
    counts = [
        (outcome, f"{number(getattr(report, outcome))}  {meaning}")
        for outcome, meaning in _OUTCOMES.items()
        if getattr(report, outcome)
    ]
    shown: list[RenderableType] = [heading(title, mark="yes" if good else "no")]
    if counts:
        shown.append(facts(counts))
    if report.rejected:
        rows = [f"{r.where}: {r.reason} ({r.code})" for r in report.rejected[:_SHOWN]]
        more = len(report.rejected) - _SHOWN
        if more > 0:
            rows.append(f"and {number(more)} more")
        shown.append(facts(("" if n else "not understood", row) for n, row in enumerate(rows)))
    return shown


def label(name: str, /, *, limit: int = 10, options: Options = DEFAULT) -> Answer:
    """Show which predictions would teach a line most.

    Args:
        name: The line.
        limit: How many.
        options: Common options.
    """
    with open_home(options) as store:
        items = queue(store, known_line(store, name).name, limit=limit)
    rows = [
        [
            item.prediction,
            item.entity or "-",
            "-" if item.time_ms is None else moment(item.time_ms),
            ", ".join(item.reasons),
        ]
        for item in items
    ]
    blocks: list[RenderableType] = [heading(f"What {name} would learn most from")]
    blocks.append(
        table(["prediction", "entity", "time", "why"], rows, whole=("prediction",))
        if rows
        else facts(
            [
                ("", "No prediction waits for a label."),
            ]
        )
    )
    first = items[0].prediction if items else "ID"
    return Answer(
        data={"line": name, "queue": [asdict(item) for item in items]},
        blocks=blocks,
        next=(
            f"genba feedback {name} --prediction {first} --value anomaly",
            f"genba feedback {name} --prediction {first} --value normal",
        ),
    )
