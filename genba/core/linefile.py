"""From a line file to a `Line`: TOML in, frozen values out, every mistake named with its place."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from genba.core.codec import decode, encode, nearest
from genba.core.ids import check_name
from genba.core.joins import check_joins
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.resolve import address, names

_WORD: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_PATH: Final = rf"(?P<path>{_WORD}(?:\s*\.\s*{_WORD})*)"
_HEADER: Final = re.compile(rf"^\s*\[\s*{_PATH}\s*\]")
_KEY: Final = re.compile(rf"^\s*{_PATH}\s*=")
_SET: Final = re.compile(rf"^\s*{_PATH}\s*=(?P<value>.*)$", re.DOTALL)
_AT_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")

# What a number must lie in to make sense; a bracket takes its end in, a parenthesis does not.
_RANGES: Final = (
    ("data.split.test", "(", 0.0, 1.0, ")"),
    ("data.split.calibrate", "(", 0.0, 1.0, ")"),
    ("train.budget.minutes", "(", 0.0, float("inf"), ")"),
    ("train.budget.trials", "[", 1, float("inf"), ")"),
    ("train.seed", "[", 0, 2**32 - 1, "]"),
    ("rollout.canary", "[", 0.0, 1.0, ")"),
    ("rollout.decide_after", "[", 1, float("inf"), ")"),
    ("rollout.roll_back_on.error_rate", "[", 0.0, 1.0, "]"),
    ("rollout.roll_back_on.not_a_number_rate", "[", 0.0, 1.0, "]"),
    ("rollout.roll_back_on.latency_ms_p99", "(", 0.0, float("inf"), ")"),
    ("capture.sample", "[", 0.01, 1.0, "]"),
    ("target.measurements", "[", 1, 200, "]"),
    ("retrain.label_noise", "[", 0.0, 0.5, "]"),
)


def load_line(path: Path | str, overrides: Iterable[str] = ()) -> Line:
    """Read a line file.

    Args:
        path: The TOML file.
        overrides: Settings given on the command line, `path=value` with a TOML value.

    Raises:
        Problem: G101 when there is no such file, G106 when it is not TOML, otherwise as
            `parse_line`, with file and line of the mistake.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as broken:
        raise Problem(
            "G106",
            f"{path} is not a text file.",
            where=f"{path}, byte {broken.start}",
            why="A line file is TOML in UTF-8.",
            tries=["genba new NAME --from FILES", "genba explain G106"],
        ) from broken
    except OSError as missing:
        raise _no_file(path, missing) from missing
    return parse_line(text, overrides, file=str(path))


def parse_line(text: str, overrides: Iterable[str] = (), *, file: str = "line file") -> Line:
    r"""Turn the text of a line file into a `Line`, strictly.

    Args:
        text: TOML.
        overrides: `path=value` settings that win over the text; the value is TOML, or plain text.
        file: What to call the text in error messages.

    Raises:
        Problem: G102 unknown key, G103 wrong type or missing, G104 bad name, G105 unknown kind,
            G106 not TOML, G107 bad `--set`, G108 a number that makes no sense.

    Example:
        >>> text = 'name = "pump"\ntask = "sensor.anomaly"\n[data]\nsource = "files:pump.csv"'
        >>> parse_line(text, ["train.seed=3", "data.label=is_bad"]).data.label
        'is_bad'
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(text, error, file) from error
    overrides = tuple(overrides)
    for override in overrides:
        _merge(tree, _parse_override(override))
    try:
        return _checked(decode(Line, tree))
    except Problem as problem:
        raise _placed(problem, text, overrides, file) from problem


def validate(line: Line) -> Line:
    """Check a line that was made in Python exactly as a file would be.

    Returns:
        The line with whole numbers as the type of their field, so that it equals, digest and all,
        the line read from a file.

    Raises:
        Problem: As `parse_line`.

    Example:
        >>> from genba.core.line import Budget, Data, Train
        >>> train = Train(budget=Budget(minutes=2))
        >>> data = Data(source="files:pump.csv")
        >>> validate(Line(name="pump", task="sensor.anomaly", data=data, train=train)).train.budget
        Budget(minutes=2.0, trials=12)
    """
    return _checked(decode(Line, encode(line)))


def _checked(line: Line) -> Line:
    """Check what types cannot say: names, kinds and ranges."""
    check_name(line.name, "line")
    _known("task", line.task, "task", 'task = "{}"')
    scheme, colon, _ = line.data.source.partition(":")
    if not colon:
        raise Problem(
            "G103",
            f"data.source must say what kind of source it is, not {line.data.source!r}.",
            where="data.source",
            tries=[f'source = "files:{line.data.source}"', "genba explain G103"],
        )
    _known("source", scheme, "data.source", 'source = "{}:…"')
    check_joins(line.data)
    for name, join in line.data.join.items():
        kind = join.source.partition(":")[0]
        _known("source", kind, f"data.join.{name}.source", 'source = "{}:…"')
    for engine in line.target.engines:
        _known("engine", engine, "target.engines", 'engines = ["{}"]')
    for trigger in line.retrain.when:
        _known("trigger", trigger, f"retrain.when.{trigger}", "when = {{ {} = … }}")
    _check_ranges(line)
    return line


def _known(kind: str, name: str, where: str, setting: str) -> None:
    try:
        address(kind, name)
    except Problem as p:
        right = nearest(name, list(names(kind))) or next(iter(names(kind)))
        tries = [setting.format(right), "genba doctor"]
        raise Problem(p.code, p.what, where=where, why=p.why, tries=tries) from p


def _check_ranges(line: Line) -> None:
    for path, opens, least, most, closes in _RANGES:
        value: Any = line
        for name in path.split("."):
            value = getattr(value, name)
        above = value >= least if opens == "[" else value > least
        below = value <= most if closes == "]" else value < most
        if not (above and below):
            wanted = f"{'at least' if opens == '[' else 'above'} {least:g}"
            if most != float("inf"):
                wanted += f" and {'at most' if closes == ']' else 'below'} {most:g}"
            raise _senseless(path, f"{path} is {value:g}; it must be {wanted}.")
    split = line.data.split
    if split.test + split.calibrate >= 1:
        total = split.test + split.calibrate
        raise _senseless(
            "data.split", f"data.split leaves nothing to train on: test + calibrate is {total:g}."
        )
    bounds = [(f"gates.{k}", v.min, v.max) for k, v in line.gates.items()]
    bounds += [(f"data.checks.{k}", v.min, v.max) for k, v in line.data.checks.items()]
    for path, low, high in bounds:
        if low is not None and high is not None and low > high:
            raise _senseless(path, f"{path} has min {low:g} above max {high:g}.")


def _senseless(where: str, what: str) -> Problem:
    return Problem("G108", what, where=where, tries=[f"change {where}", "genba explain G108"])


def _parse_override(text: str) -> dict[str, Any]:
    found = _SET.match(text)
    if not found:
        raise Problem(
            "G107",
            f"--set {text} is not of the form path=value.",
            where=f"--set {text}",
            tries=["--set train.budget.minutes=2", "genba explain G107"],
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # the shell took the quotes: plain text is text
        value = json.dumps(found["value"].strip(), ensure_ascii=False)
        return tomllib.loads(f"{found['path']} = {value}")


def _merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def find_key(text: str, path: str) -> int | None:
    r"""Return the number of the line that sets a dotted path, or that comes nearest to it.

    Example:
        >>> find_key('name = "a"\n[train]\nbudget = { minutes = 1 }', "train.budget.minutes")
        3
    """
    best, best_length, table = None, 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            full = table = _plain(header["path"])
        elif key := _KEY.match(line):
            full = f"{table}.{_plain(key['path'])}" if table else _plain(key["path"])
        else:
            continue
        inside = path == full or path.startswith((f"{full}.", f"{full}["))
        if inside and len(full) > best_length:
            best, best_length = number, len(full)
    return best


def _plain(path: str) -> str:
    return ".".join(word.strip("\"'") for word in re.findall(_WORD, path))


def _placed(problem: Problem, text: str, overrides: Sequence[str], file: str) -> Problem:
    """The same problem, with the place in the file or on the command line."""
    path = problem.where or _subject(problem)
    where = _place(path, text, overrides, file)
    tries = [step.replace("genba check LINE", f"genba check {file}") for step in problem.tries]
    if where.startswith("--set "):
        table = path.rpartition(".")[0]
        inside = f"--set {table}." if table else "--set "
        tries = [re.sub(r"^(\w+) = ", rf"{inside}\1=", step) for step in tries]
        given = where.removeprefix("--set ")
        if problem.code == "G102" and given.startswith(path):  # what follows the misspelt name
            tries = [step.replace("=…", given.removeprefix(path)) for step in tries]
    return Problem(problem.code, problem.what, where=where, why=problem.why, tries=tries)


def _subject(problem: Problem) -> str:
    return "name" if problem.code == "G104" else ""


def _place(path: str, text: str, overrides: Sequence[str], file: str) -> str:
    for override in overrides:
        found = _SET.match(override)
        if found and f"{path}.".startswith(f"{_plain(found['path'])}."):
            return f"--set {override}"
    number = find_key(text, path)
    for override in overrides:  # a misspelt table, which is not in the file
        found = _SET.match(override)
        if found and _plain(found["path"]).startswith(f"{path}.") and not _has(text, path):
            return f"--set {override}"
    if number is None:
        return f"{file}, {path}" if path else file
    return f"{file}:{number}   {text.splitlines()[number - 1].strip()}"


def _has(text: str, path: str) -> bool:
    table: Any = tomllib.loads(text)
    for name in path.split("."):
        if not isinstance(table, Mapping) or name not in table:
            return False
        table = table[name]
    return True


def _not_toml(text: str, error: tomllib.TOMLDecodeError, file: str) -> Problem:
    message = str(error)
    found = _AT_LINE.search(message)
    number = int(found[1]) if found else len(text.splitlines())
    lines = text.splitlines()
    shown = lines[number - 1].strip() if 0 < number <= len(lines) else "the end of the file"
    return Problem(
        "G106",
        f"{file} is not valid TOML at line {number}.",
        where=f"{file}:{number}   {shown}",
        why=f"{_AT_LINE.sub('', message).strip()}.",
        tries=[f"correct line {number} of {file}", "genba explain G106"],
    )


def _no_file(path: Path, error: OSError) -> Problem:
    if path.is_dir():
        what = f"{path} is a folder, not a line file."
    elif path.exists():
        what = f"The line file {path} cannot be read: {error.strerror}."
    else:
        what = f"The line file {path} does not exist."
    near = [p for folder in (Path(), Path("lines"), path) for p in sorted(folder.glob("*.toml"))]
    here = {p.stem: str(p) for p in near if p.name != "pyproject.toml"}
    match = nearest(path.stem, list(here))
    tries = [f"genba run {here[match]}"] if match else []
    return Problem(
        "G101", what, where=str(path), tries=[*tries, f"genba new {path.stem} --from FILES"]
    )
