"""`genba feedback` and `genba label`: what people know, and what is worth asking them."""

import getpass
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cyclopts import Parameter
from rich.console import RenderableType

from genba.core.problem import Problem
from genba.data.feedback import FeedbackReport, read_file, receive
from genba.data.feedback.labels import classes_of, task_of
from genba.loop.queue import QueueItem, queue
from genba.store.home import Store
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import number, when
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
    """Whom and what it is about besides, and who says it."""

    entity: str = ""
    """Which machine; with --time, instead of the id of a prediction."""

    time: str = ""
    """When: ISO 8601, UTC where no offset is given."""

    mask: Path | None = None
    """Image that is not black where the defect is."""

    region: str = ""
    """Where the defect is: boxes x,y,width,height or polygons x,y x,y x,y, separated by
    semicolons; fractions of the image, or pixels."""

    kind: str = ""
    """label, correction or comment (default: label where there is a value)."""

    author: str = ""
    """Who says so (default: your login name)."""

    comment: str = ""
    """In words."""

    def row(self, prediction: str, value: str) -> dict[str, Any]:
        """Return what was given as a row of feedback; empty when nothing was."""
        said = {"prediction": prediction, "value": value, **asdict(self)}
        given = {name: what for name, what in said.items() if what}
        return {**given, "author": self.author or getpass.getuser()} if given else {}


NOTHING: Final = Said()


def feedback(
    name: str,
    /,
    prediction: str = "",
    value: str = "",
    *,
    file: Path | None = None,
    said: Said = NOTHING,
    options: Options = DEFAULT,
) -> Answer:
    """Tell a line what was true.

    Args:
        name: The line.
        prediction: Id of the prediction, or "last"; or give --entity and --time instead.
        value: What was true: anomaly, normal, the name of a class, a number.
        file: CSV or JSON Lines with the fields prediction, or entity and time; value; mask (a path
            beside the file) or region; kind; author; comment.
        said: More about the one thing.
        options: Common options.
    """
    row = said.row(prediction, value)
    if (file is None) != bool(value or said.comment) or (file and row):
        raise Problem(
            "G110",
            "Give either --file, or a prediction and a value or --comment.",
            tries=[
                f"genba feedback {name} --file labels.csv",
                f"genba feedback {name} last anomaly --author me",
            ],
        )
    with open_home(options) as store:
        line = known_line(store, name)
        if prediction == LAST:
            row["prediction"] = newest_prediction(store, line.name)
        rows: Iterable[Mapping[str, Any]] = read_file(file) if file else [row]
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
        line = known_line(store, name)
        items = queue(store, line.name, limit=limit)
        words = _words(store, line.name)
    blocks: list[RenderableType] = [heading(f"What {name} would learn most from")]
    if items:
        blocks.append(_questions(items))
    else:
        blocks.append(facts([("", "No prediction waits for a label.")]))
    asked = items[0].prediction if items else "ID"
    return Answer(
        data={"line": name, "queue": [asdict(item) for item in items], "words": words},
        blocks=blocks,
        next=tuple(f"genba feedback {name} {asked} {shlex.quote(word)}" for word in words[:2]),
    )


def _words(store: Store, line: str) -> tuple[str, ...]:
    """Return what may be said about a line's predictions, the commonest first."""
    return task_of(store, line).corrections(classes_of(store, line))


def _questions(items: Sequence[QueueItem]) -> RenderableType:
    """Return the queue as a table, without columns that say nothing."""
    columns = {
        "prediction": [item.prediction for item in items],
        "entity": [item.entity or "" for item in items],
        "time": ["" if item.time_ms is None else when(item.time_ms) for item in items],
        "asked": [item.asked or "" for item in items],
        "answer": [_answer(item) for item in items],
        "why": [", ".join(item.reasons) for item in items],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    rows = [[cell or "-" for cell in row] for row in zip(*shown.values(), strict=True)]
    return table(list(shown), rows, whole=("prediction",))


def _answer(item: QueueItem) -> str:
    """Return what was answered: the class, or whether it was an alarm."""
    if item.answer is not None:
        return item.answer
    if item.alarm is not None:
        return "alarm" if item.alarm else "no alarm"
    return "" if item.score is None else f"score {item.score:.2f}"
