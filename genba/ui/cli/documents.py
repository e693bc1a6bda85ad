"""`genba documents`: what an assistant answers from."""

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.problem import Problem
from genba.data.documents import held
from genba.runs.progress import ConsoleProgress, Progress, SilentProgress
from genba.stages import documents as indexing
from genba.stages import renewal, retrieval
from genba.store.home import Store
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import measure, moment, number, short
from genba.ui.cli.lookup import known_line, open_home, rollout_of
from genba.ui.cli.options import DEFAULT, Options

Do = Literal["list", "add", "remove", "refresh", "search", "measure"]
_NEEDS: Final = {
    "add": "a source, such as files:manuals or package:nut-doc",
    "remove": "a source",
    "search": "a question",
    "measure": "a file of questions",
}
_SHOWN: Final = 300  # characters of a passage


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """About a source, or about who searches."""

    access: tuple[str, ...] = ()
    """Tag of a key that may see the documents, or that searches; several times for several."""

    until: datetime | None = None
    """Day from which the documents are not found any more (default: never)."""

    canary: float = 0.0
    """Share of the traffic that gets the documents first (default: all at once)."""

    most: int = 5
    """Passages to show."""


NOTHING: Final = About()


def documents(
    do: Do,
    line: str,
    what: str = "",
    /,
    *,
    about: Annotated[About, Parameter(name="*")] = NOTHING,
    me: str = "",
    options: Options = DEFAULT,
) -> Answer:
    """Say what an assistant answers from.

    `genba documents add LINE files:manuals` adds a folder of text, Markdown, HTML and PDF; `genba
    documents refresh LINE` reads what changed and lets the assistant answer from it, without
    training. `genba documents search LINE "QUESTION"` shows what an assistant would be given, and
    `genba documents measure LINE QUESTIONS.jsonl` how good the search is on its own.

    Args:
        do: list, add, remove, refresh, search or measure.
        line: The assistant.
        what: For add and remove a source, for search a question, for measure a file of JSON Lines
            with question, document and perhaps place and contains.
        about: About a source, or about who searches.
        me: Who decides (default: your login name).
        options: Common options.
    """
    if do in _NEEDS and not what:
        raise _missing(do, line)
    by = me or getpass.getuser()
    with open_home(options) as store:
        known = known_line(store, line)
        if do == "add":
            return _added(store, known, what, about, by)
        if do == "remove":
            held.remove(store, known, what, by=by)
            return _listed(store, known)
        if do == "refresh":
            return _refreshed(store, known, about, by, quiet=options.json)
        if do == "search":
            return _searched(store, known, what, about)
        if do == "measure":
            return _measured(store, known, Path(what), about)
        return _listed(store, known)


def _added(store: Store, line: Line, source: str, about: About, by: str) -> Answer:
    until = None if about.until is None else round(about.until.timestamp() * 1_000)
    held.add(store, line.name, held.Held(source=source, access=about.access, until_ms=until, by=by))
    return _listed(store, line)


def _listed(store: Store, line: Line) -> Answer:
    sources = held.held(store, line)
    stale = indexing.stale(store, line)
    record = indexing.newest(store, line.name)
    body: Mapping[str, Any] = {} if record is None else record.body
    rows = [
        [
            one.source,
            ", ".join(one.access) or "everybody",
            moment(one.until_ms)[:10] if one.until_ms else "-",
            one.by or "the line file",
            "to be read" if one.source in stale else "read",
        ]
        for one in sources
    ]
    told = [
        ("read last", moment(record.time_ms) if record else "not yet"),
        ("documents", number(body.get("documents", 0))),
        ("passages", number(body.get("passages", 0))),
        *((f"refused {number(n)}", reason) for reason, n in body.get("refused", {}).items()),
    ]
    grid = table(["source", "who may see it", "until", "added by", "state"], rows)
    title = f"Documents of {line.name}" if rows else f"{line.name} answers from no documents"
    return Answer(
        data={
            "line": line.name,
            "sources": [{**encode(one), "stale": one.source in stale} for one in sources],
            "newest": {**body, "id": record.id} if record else None,
        },
        blocks=[heading(title), *([grid, facts(told)] if rows else [])],
        next=_next(line.name, rows=bool(rows), stale=bool(stale)),
    )


def _next(line: str, *, rows: bool, stale: bool) -> tuple[str, ...]:
    if stale:
        return (f"genba documents refresh {line}",)
    if rows:
        return (f'genba documents search {line} "QUESTION"',)
    return (f"genba documents add {line} files:FOLDER",)


def _refreshed(store: Store, line: Line, about: About, by: str, *, quiet: bool) -> Answer:
    progress: Progress = SilentProgress() if quiet else ConsoleProgress()
    try:
        done = renewal.refresh(store, line, by=by, share=about.canary, progress=progress)
    finally:
        progress.close()
    state = "as before: nothing changed"
    if done.changed:
        state = f"a canary with {about.canary:.0%} of the traffic" if about.canary else "in service"
    return Answer(
        data={**encode(done), "changed": done.changed},
        blocks=[
            heading(f"{line.name} answers from {number(done.passages)} passages", mark="yes"),
            facts(
                [
                    ("package", f"{short(done.package)}, {state}"),
                    ("embedded", f"{number(done.embedded)} that are new or changed"),
                    *((f"refused {number(n)}", reason) for reason, n in done.refused.items()),
                ]
            ),
        ],
        next=(
            f'genba documents search {line.name} "QUESTION"',
            *((f"genba rollback {line.name}",) if done.changed and not about.canary else ()),
        ),
    )


def _searched(store: Store, line: Line, text: str, about: About) -> Answer:
    library = _library(store, line)
    found = library.find(text, about.access, most=about.most)
    least, given = library.settings.least, library.given(found)
    rows = [
        [
            f"{p.score:.2f}{' given' if p in given else ''}",
            " > ".join(filter(None, (p.document, p.place))),
            _short(p.text),
        ]
        for p in found
    ]
    told = f"{len(given)} of them would be given to the language model (from {least:g} on)"
    return Answer(
        data={"question": text, "least": least, "passages": [encode(p) for p in found]},
        blocks=[
            heading(f"{number(len(found))} passages; {told}"),
            *([table(["score", "where", "what it says"], rows)] if rows else []),
        ],
        next=(f"genba documents list {line.name}",),
    )


def _measured(store: Store, line: Line, path: Path, about: About) -> Answer:
    library = _library(store, line)
    measures, asked = retrieval.measure(library, retrieval.questions(path), about.access)
    missed = [[one.question, one.document, str(rank or "-")] for one, rank in asked if rank != 1]
    grid = table(["not first", "answered in", "place"], missed[: about.most])
    return Answer(
        data={
            "line": line.name,
            "measures": {name: encode(found) for name, found in measures.items()},
            "questions": [{**encode(one), "rank": rank} for one, rank in asked],
        },
        blocks=[
            heading(f"Search of {line.name}, on {number(len(asked))} questions"),
            facts([(_named(name), measure(found)) for name, found in measures.items()]),
            *([grid] if missed else []),
        ],
        next=(f"genba documents list {line.name}",),
    )


def _named(name: str) -> str:
    return {"mrr": "mean reciprocal rank"}.get(name, name.replace("_", " "))


def _library(store: Store, line: Line) -> Any:
    stable = rollout_of(store, line.name).stable
    return retrieval.library_of(store, line, stable.package if stable else None)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _missing(do: str, line: str) -> Problem:
    return Problem(
        "G110",
        f"genba documents {do} needs {_NEEDS[do]}.",
        where=f"genba documents {do} {line}",
        tries=[f"genba documents list {line}", "genba documents --help"],
    )
