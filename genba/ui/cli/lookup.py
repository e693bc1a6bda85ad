"""Finding what a user named: the home, a line, a record by the first characters of its id."""

from pathlib import Path
from typing import Final

from genba.core.codec import decode, nearest
from genba.core.line import Line
from genba.core.linefile import load_line
from genba.core.problem import Problem
from genba.core.rollout import Rollout, fold
from genba.runs.lines import newest_line
from genba.store.home import Store
from genba.store.ledger import Record
from genba.ui.cli.options import Options
from genba.ui.cli.pages import folder

LAST: Final = "last"  # may be typed instead of the id of the newest prediction
_LEAST: Final = 4  # characters of an id that are worth looking up
_RECENT: Final = 100  # capture batches that are looked through for the newest prediction


def open_home(options: Options, *, create: bool = False) -> Store:
    """Open the home the user means; by default it must exist.

    Raises:
        Problem: G301 when there is none and `create` is false.
    """
    return Store.open(options.home, create=create)


def line_names(store: Store) -> list[str]:
    """Return the names of every line of this home, oldest first."""
    return list(dict.fromkeys(r.line for r in reversed(store.ledger.find("line"))))


def known_line(store: Store, name: str) -> Line:
    """Return a line as it was run last.

    Raises:
        Problem: G109 when this home has no such line.
    """
    found = newest_line(store, name)
    if found:
        return decode(Line, found.body)
    names = line_names(store)
    near = nearest(name, names) if names else None
    raise Problem(
        "G109",
        f"This home has no line {name!r}" + (f"; did you mean {near}?" if near else "."),
        where=str(store.path),
        why=f"It has: {', '.join(names)}." if names else "Nothing was run here yet.",
        tries=["genba status", f"genba run {name}.toml"],
    )


def line_path(text: str) -> Path:
    """Return the file of a line; NAME is NAME.toml, often beside a folder of data called NAME."""
    path = Path(text)
    beside = path.with_suffix(".toml")
    return beside if not path.suffix and not path.is_file() and beside.is_file() else path


def file_or_name(store: Store, text: str, overrides: tuple[str, ...] = ()) -> Line:
    """Return the line of a file; NAME is NAME.toml, or the recorded line where there is no file.

    Raises:
        Problem: As `load_line`, G109 for `--set` on a recorded line that has no file.
    """
    path = line_path(text)
    if path.suffix or path.is_file():
        return load_line(path, overrides)
    if not store.ledger.find("line", line=text, limit=1):
        return load_line(path if path.is_dir() else path.with_suffix(".toml"), overrides)
    if overrides:
        raise Problem(
            "G109",
            f"--set changes a line file; {text} is only a name.",
            where=f"--set {overrides[0]}",
            tries=[f"genba run {text}.toml --set {overrides[0]}"],
        )
    return known_line(store, text)


def find_record(store: Store, kinds: tuple[str, ...], text: str, what: str) -> Record:
    """Return the record whose id is, or begins with, what the user typed.

    Raises:
        Problem: G109 when nothing or more than one record fits.
    """
    exact = store.ledger.lookup(text)
    if exact and exact.kind in kinds:
        return exact
    begins = [
        record
        for kind in kinds
        for record in store.ledger.find(kind)
        if len(text) >= _LEAST and record.id.startswith(text)
    ]
    if len(begins) == 1:
        return begins[0]
    if begins:
        several = ", ".join(f"{r.kind} {r.id[:16]}" for r in begins[:4])
        reason = f"{text} is the beginning of {len(begins)} ids: {several}."
    else:
        reason = f"This home has no {what} {text!r}."
    raise Problem(
        "G109", reason, where=str(store.path), tries=["genba models", "genba data", "genba status"]
    )


def newest_prediction(store: Store, line: str | None = None) -> str:
    """Return the id of the newest prediction that is written, of a line or of all.

    Raises:
        Problem: G109 when nothing was predicted yet.
    """
    for record in store.ledger.find("capture", line=line, limit=_RECENT):
        if record.body.get("rows"):
            return f"{record.body['server']}-{record.body['last']}"
    raise Problem(
        "G109",
        "No prediction was made in this home yet.",
        where=str(store.path),
        why="Predictions are written at least every second while there are any.",
        tries=["genba up", f"genba predict {line or 'LINE'} --input FILE"],
    )


def rollout_of(store: Store, line: str) -> Rollout:
    """Return what a line has in production."""
    return fold(store.ledger.events(line=line, kinds=("deploy",)))


def stable_of(store: Store, line: str) -> str:
    """Return the package in production.

    Raises:
        Problem: G502 when there is none.
    """
    stable = rollout_of(store, line).stable
    if stable:
        return stable.package
    raise Problem(
        "G502",
        f"The line {line} has nothing in production.",
        where=line,
        tries=[f"genba run {line}", "genba status"],
    )


def example_line(name: str) -> Path:
    """Return the path of a line that ships with Genba.

    Raises:
        Problem: G109 when none has that name.
    """
    shipped = {path.stem: path for path in sorted(folder("lines").glob("*.toml"))}
    if name in shipped:
        return shipped[name]
    raise Problem(
        "G109",
        f"No line called {name} ships with Genba.",
        where=str(folder("lines")),
        why=f"There are: {', '.join(shipped) or 'none'}.",
        tries=["genba init", 'genba new NAME --from "data/*.csv"'],
    )
