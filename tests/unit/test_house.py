"""The house's own rules, kept by machine rather than by memory."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genba.catalog import KINDS, TASKS
from genba.core.problem import EXIT_CODES
from genba.ui.cli.app import COMMANDS
from genba.ui.cli.pages import page, titles

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "genba").rglob("*.py"))
PYTHON = [
    *SOURCES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "benchmarks").glob("[!.]*/*.py")),  # dotted folders hold peers' environments
]
MOST_LINES = 400
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_NAMES = {"utils", "util", "common", "base", "manager", "helpers", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
# Addresses that only work where the author sits; a fresh machine has its own settings.
REGISTRY = re.compile(
    r"https?://[^\s\"')]*(pypi|simple|registry|artifactory|nexus|mirror)", re.IGNORECASE
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield name_of(path), ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def problem_calls() -> Iterator[tuple[str, ast.Call]]:
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
                yield f"{name}:{node.lineno}", node


def texts(node: ast.AST) -> Iterator[str]:
    """The literal strings inside an expression, with {} for what is computed."""
    inside: set[int] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            inside |= {id(v) for v in ast.walk(part)}
            yield "".join(
                v.value if isinstance(v, ast.Constant) and isinstance(v.value, str) else "{}"
                for v in part.values
            )
        elif (
            isinstance(part, ast.Constant)
            and isinstance(part.value, str)
            and id(part) not in inside
        ):
            yield part.value


def strings() -> Iterator[tuple[str, str]]:
    """Every string of the package with its place; docstrings and comments do not count."""
    for name, tree in trees():
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in documented
            ):
                yield f"{name}:{node.lineno}", node.value


def codes_raised() -> dict[str, str]:
    """Every code of a Problem that the package mentions, with the first place."""
    found: dict[str, str] = {}
    for place, text in strings():
        if re.fullmatch(r"G\d{3}", text):
            found.setdefault(text, place)
    return found


def test_layers_point_downwards() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_short() -> None:
    long = {
        name_of(p): n
        for p in PYTHON
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long


def test_no_dumping_grounds() -> None:
    bad = [
        name_of(p) for p in SOURCES if {p.stem, *p.relative_to(ROOT).parts[:-1]} & FORBIDDEN_NAMES
    ]
    assert not bad


def test_nothing_that_carries_code_is_read_or_written() -> None:
    bad = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                roots = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                roots = {node.func.id} & FORBIDDEN_CALLS
            elif isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
                roots = set() if getattr(node.value, "value", None) is False else {node.arg}
            else:
                continue
            bad += [
                f"{name}:{getattr(node, 'lineno', 0)} {r}"
                for r in roots & (FORBIDDEN_MODULES | FORBIDDEN_CALLS | {"shell", "allow_pickle"})
            ]
    assert not bad


def test_imports_stand_at_the_top() -> None:
    bad = [
        f"{name}:{inner.lineno}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
        if isinstance(inner, (ast.Import, ast.ImportFrom))
    ]
    assert not bad


def test_nothing_is_unfinished() -> None:
    bad = [
        f"{name_of(p)}:{number}"
        for p in SOURCES
        for number, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not bad


def test_every_exemption_has_a_reason() -> None:
    """`noqa`, `type: ignore` and `pragma` say why, behind two spaces, in words."""
    mark = re.compile(
        r"#\s*(noqa|type: ignore|pragma)[^#]*?(?:\]|: [A-Z0-9, ]+|no cover)(?P<rest>.*)$"
    )
    bad = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = mark.search(line)
            if found and len(found["rest"].strip("# ").split()) < 2:
                bad.append(f"{name_of(path)}:{number}  {line.strip()}")
    assert not bad


def test_no_address_of_a_registry_in_the_tree() -> None:
    checked = [
        *PYTHON,
        *ROOT.glob("*.txt"),
        *ROOT.glob("*.toml"),
        *ROOT.glob("*.md"),
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
        *(ROOT / "docs").rglob("*.md"),
    ]
    bad = [
        name_of(p)
        for p in checked
        if p != Path(__file__) and REGISTRY.search(p.read_text(encoding="utf-8"))
    ]
    assert not bad


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    raised, written = codes_raised(), titles()
    missing = {code: place for code, place in raised.items() if code not in written}
    assert not missing, "codes without docs/errors page"
    assert not sorted(set(written) - set(raised)), "pages whose code nobody raises"


@pytest.mark.parametrize("code", sorted(titles()))
def test_a_page_says_what_to_do(code: str) -> None:
    text = page(code) or ""
    assert text.startswith(f"# {code}: ")
    assert code[:2] in EXIT_CODES
    assert "What to do" in text or "what to do" in text.lower()
    assert "```" in text, "something to type or to write"
    assert 8 <= len(text.splitlines()) <= 60
    assert all(len(line) <= 110 for line in text.splitlines())


def test_every_problem_says_what_to_try() -> None:
    """Either the list has something literal in it, or it is computed; it is never left empty."""
    bad = []
    for place, call in problem_calls():
        tries = next((k.value for k in call.keywords if k.arg == "tries"), None)
        empty = isinstance(tries, (ast.List, ast.Tuple)) and not tries.elts
        if tries is None or empty:
            bad.append(place)
    assert not bad


def test_what_to_try_can_be_typed() -> None:
    """A suggestion that begins with genba names a command that exists."""
    bad = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.keyword) and node.arg in ("tries", "next")):
                continue
            for text in texts(node.value):
                words = text.split()
                if (
                    words[:1] == ["genba"]
                    and len(words) > 1
                    and words[1] not in {*COMMANDS, "{}", "--help"}
                ):
                    bad.append(f"{name}:{node.value.lineno}  {text}")
    assert not bad


def test_pages_name_commands_that_exist() -> None:
    bad = []
    for path in [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = re.match(r"\s*\$ genba (\S+)", line)
            if found and found[1] not in {*COMMANDS, "--help", "--version"}:
                bad.append(f"{name_of(path)}:{number}  {line}")
    assert not bad


def test_first_line_of_a_problem_is_a_sentence() -> None:
    bad = []
    for place, call in problem_calls():
        what = call.args[1] if len(call.args) > 1 else None
        if isinstance(what, (ast.Constant, ast.JoinedStr)):
            text = next(iter(texts(what)), "")
            if not text.rstrip().endswith((".", "?", "{}")):
                bad.append(f"{place}  {text}")
    assert not bad


def test_only_tasks_know_which_task_they_are() -> None:
    """Nothing outside `tasks/` can ask for one: its name stands nowhere else but in the catalog."""
    known = ("genba/tasks/", "genba/catalog.py")
    bad = [
        f"{place}  {text}"
        for place, text in strings()
        if text in TASKS and not place.startswith(known)
    ]
    assert not bad


def test_the_rule_about_task_names_sees_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '"""sensor.anomaly"""\nif task == "sensor.anomaly":\n    pass\n'
    monkeypatch.setattr(sys.modules[__name__], "trees", lambda: [("genba/x.py", ast.parse(text))])
    assert list(strings()) == [("genba/x.py:2", "sensor.anomaly")]


def test_the_catalog_names_what_exists() -> None:
    for kind, table in KINDS.items():
        for name, address in table.items():
            module, _, attribute = address.partition(":")
            path = ROOT / Path(*module.split("."))
            file = (
                path.with_suffix(".py")
                if path.with_suffix(".py").exists()
                else path / "__init__.py"
            )
            assert file.exists(), f"{kind} {name}: {module}"
            assert attribute in file.read_text(encoding="utf-8"), f"{kind} {name}: {attribute}"


def test_openvino_does_not_report_to_its_maker() -> None:
    """`import openvino` sends an event to its maker where its telemetry package is importable."""
    program = "import sys, genba.engines.openvino; print('openvino_telemetry.main' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
