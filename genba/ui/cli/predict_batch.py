"""`genba predict --batch`: whole files of any size, in bounded memory, that survive any crash."""

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import RenderableType

from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.values import Manifest
from genba.runs.progress import ConsoleProgress, Progress, SilentProgress
from genba.stages.tune import values
from genba.store.home import Store
from genba.targets.cost import bill
from genba.ui.cli import figures, predict_ask
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.figures import number, short
from genba.ui.cli.predict_ask import Made
from genba.ui.cli.predict_batch_ask import Answers, answers_here, served
from genba.ui.cli.predict_batch_job import JSON_LINES, PARQUET, Job
from genba.ui.cli.predict_batch_rows import Disorder, Questions, questions
from genba.ui.cli.predict_batch_table import Columns

_KINDS: Final = {
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": JSON_LINES,
}
_NOT_WRITTEN: Final = (".csv", ".tsv", ".txt", ".gz")
_BY_ROW, _BY_TIME = "row", "time"
_SORTED: Final = "sorted"  # folder below the parts; what is in it is never needed again
_REASONS: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a batch is asked to do.

    Attributes:
        store: The home.
        line: Which line to ask.
        package: Which package of it answers.
        manifest: Of the package.
        outputs: Names of what is wanted.
        input: File, folder or pattern.
        to: The file to be written.
        rejected: Where rows go that cannot be used; nowhere when None.
        url: The server; the package is run in this process when empty.
        quiet: Say nothing while it goes on.
    """

    store: Store
    line: Line
    package: str
    manifest: Manifest
    outputs: tuple[str, ...]
    input: Path
    to: Path
    rejected: Path | None = None
    url: str = ""
    quiet: bool = False


@dataclass(kw_only=True, slots=True)
class _Done:
    """What this run of the command did."""

    began: float = field(default_factory=time.monotonic)
    cpu_began: float = field(default_factory=time.process_time)
    stamp: str = ""  # of the input as it was at the beginning
    notes: list[str] = field(default_factory=list)
    parts: int = 0
    parts_before: int = 0  # found finished
    answered: int = 0  # rows, by this run
    rows: int = 0  # in the file
    rejected: dict[str, int] = field(default_factory=dict)
    order: str = _BY_ROW


def run_batch(batch: Batch) -> Answer:
    """Answer every row of a file and write the answers, or go on with that.

    Raises:
        Problem: G765 for a kind of file that is not written, G766 when another process writes it,
            G767 when the package leaves service meanwhile, G722 when no row can be used.
    """
    kind = kind_of(batch.to, batch.input)
    tuned = values(batch.store, batch.package, batch.manifest)
    progress: Progress = SilentProgress() if batch.quiet else ConsoleProgress()
    done = _Done()
    try:
        progress.stage("predict")
        progress.step("looking at the input")
        source = _questions(batch, None)
        done.stamp = source.stamp()
        about = {
            "input": source.fingerprint(),
            "line": batch.line.name,
            "package": batch.package,
            "outputs": list(batch.outputs),
            "parameters": tuned,
            "answered by": "server" if batch.url else "this process",
        }
        with _asked(batch, tuned) as answers:
            _in_an_order(batch, kind, about, answers, progress, done)
    finally:
        progress.close()
    return _answer(batch, done)


def kind_of(to: Path, source: Path) -> str:
    """Return the kind of file to write: what its name says, else the kind of the input.

    Raises:
        Problem: G765 for a name of a kind that is not written.

    Example:
        >>> kind_of(Path("out.jsonl"), Path("in.parquet")), kind_of(Path("out"), Path("in.parquet"))
        ('json lines', 'parquet')
    """
    suffix = to.suffix.lower()
    if suffix in _NOT_WRITTEN:
        raise Problem(
            "G765",
            f"A batch writes Parquet or JSON Lines, not {suffix}.",
            where=f"--to {to}",
            why="A forecast or a probability is a list, which such a file has no place for.",
            tries=[f"--to {to.with_suffix('.parquet')}", f"--to {to.with_suffix('.jsonl')}"],
        )
    return _KINDS.get(suffix) or _KINDS.get(source.suffix.lower()) or JSON_LINES


def _questions(batch: Batch, scratch: Path | None) -> Questions:
    return questions(batch.line, batch.manifest, batch.input, scratch)


@contextmanager
def _asked(batch: Batch, tuned: Mapping[str, float]) -> Iterator[Answers]:
    if batch.url:
        with served(
            batch.url, batch.package, batch.manifest, outputs=batch.outputs, parameters=tuned
        ) as answers:
            yield answers
        return
    with predict_ask.here(batch.store, batch.package, batch.manifest, batch.outputs) as ask:
        yield answers_here(ask)


def _in_an_order(
    batch: Batch,
    kind: str,
    about: Mapping[str, Any],
    answers: Answers,
    progress: Progress,
    done: _Done,
) -> None:
    """Answer in the order of the input; where its times go backwards, in the order of time."""
    job = Job(batch.to, kind, {**about, "order": _BY_ROW})
    sorted_job = Job(batch.to, kind, {**about, "order": _BY_TIME})
    if not sorted_job.is_begun():
        try:
            with job:
                _work(batch, job, None, answers, progress, done)
            return
        except Disorder:
            done.notes.append("rows are not in the order of time; they are sorted first")
            progress.note(done.notes[-1])
    done.order = _BY_TIME
    with sorted_job:
        scratch = sorted_job.folder / _SORTED
        scratch.mkdir(exist_ok=True)
        _work(batch, sorted_job, scratch, answers, progress, done)


def _work(
    batch: Batch,
    job: Job,
    scratch: Path | None,
    answers: Answers,
    progress: Progress,
    done: _Done,
) -> None:
    asked = _questions(batch, scratch)
    columns = Columns(
        batch.line,
        batch.manifest,
        batch.outputs,
        images=asked.images,
        numbered=bool(batch.url),
    )
    _say_how_it_begins(job, progress, done)
    done.parts = done.answered = 0
    for stretch in asked.stretches(job.done, job.reject):
        done.parts += 1
        if not job.done(stretch.index):
            made: list[Made] = []
            refused: list[Mapping[str, Any]] = []
            for outcome in answers(stretch.parts):
                made += outcome.made
                refused += outcome.refused
                done.answered += sum(len(one.part) for one in outcome.made)
                progress.step(_how_far(done))
            job.reject("refused", stretch.index, refused)
            job.add(stretch.index, columns.table(made))
        progress.step(_how_far(done, stretch.fraction))
    if _questions(batch, None).stamp() != done.stamp:
        raise _changed(batch.input)
    done.rejected = dict(job.rejected().most_common())
    if not done.parts:
        job.discard()
        raise _nothing(batch.input, done.rejected)
    progress.step("putting the parts together")
    done.rows = job.finish(done.parts, columns.schema, batch.rejected)
    if not done.rows:
        raise _nothing(batch.input, done.rejected)


def _say_how_it_begins(job: Job, progress: Progress, done: _Done) -> None:
    if any(name != "order" for name in job.replaced):
        done.notes.append(f"begun anew: {', '.join(job.replaced)} changed since the last time")
        progress.note(done.notes[-1])
    done.parts_before = job.parts_done
    if done.parts_before:
        progress.note(f"going on: {number(done.parts_before)} parts are finished already")


def _how_far(done: _Done, fraction: float | None = None) -> str:
    """Say how far it is, how quick, and how long it will take."""
    lasted_s = max(1e-9, time.monotonic() - done.began)
    text = f"{number(done.answered)} rows, {number(round(done.answered / lasted_s))} rows/s"
    if fraction:
        left_s = lasted_s * (1 - fraction) / fraction
        text += f", {100 * fraction:.0f} %, {figures.seconds(left_s)} left"
    return text


def _changed(path: Path) -> Problem:
    return Problem(
        "G213",
        f"{path.name} changed while it was read.",
        where=str(path),
        why="Something is still writing to it, so what was read may be half of it.",
        tries=["run again when the file is complete", "genba explain G213"],
    )


def _nothing(path: Path, rejected: Mapping[str, int]) -> Problem:
    return Problem(
        "G722",
        f"{path} has no row that can be used.",
        where=str(path),
        why="; ".join(f"{n} rows: {why}" for why, n in rejected.items()),
        tries=[f"head -3 {path}", "genba explain G722"],
    )


def _answer(batch: Batch, done: _Done) -> Answer:
    lasted_s = time.monotonic() - done.began
    cost = bill(lasted_s, time.process_time() - done.cpu_began)
    rejected = sum(done.rejected.values())
    told: list[tuple[str, RenderableType]] = [
        ("written", f"{batch.to}, in the order of {'time' if done.order == _BY_TIME else 'rows'}"),
        ("package", short(batch.package)),
        ("speed", f"{number(round(done.answered / max(1e-9, lasted_s)))} rows/s"),
    ]
    told += [
        ("rejected", f"{number(n)}: {why}") for why, n in list(done.rejected.items())[:_REASONS]
    ]
    if batch.rejected:
        told.append(("rejected rows", str(batch.rejected)))
    told += [("note", note) for note in done.notes]
    if done.parts_before:
        told.append(("went on", f"{done.parts_before} of {done.parts} parts were finished before"))
    told += figures.bill_facts(cost)
    if batch.url:
        told.append(("", "energy and money are this process's; the server counts its own"))
    data = {
        "line": batch.line.name,
        "package": batch.package,
        "to": str(batch.to),
        "rows": done.rows,
        "answered_now": done.answered,
        "rejected": done.rejected,
        "rejected_to": str(batch.rejected) if batch.rejected else None,
        "order": done.order,
        "parts": done.parts,
        "parts_before": done.parts_before,
        "seconds": lasted_s,
        "cpu_seconds": cost.cpu_seconds,
        "joules": cost.joules.value,
        "notes": done.notes,
    }
    title = f"{batch.line.name}: {number(done.rows)} predictions"
    title += f", {number(rejected)} rows rejected" if rejected else ""
    return Answer(
        data=data,
        blocks=[heading(title, mark="wait" if rejected else "yes"), facts(told)],
        next=(_look(batch.to, kind_of(batch.to, batch.input)),),
    )


def _look(path: Path, kind: str) -> str:
    if kind == JSON_LINES:
        return f"head -3 {shlex.quote(str(path))}"
    code = f'import polars; print(polars.read_parquet("{path}"))'
    return f"python -c {shlex.quote(code)}"
