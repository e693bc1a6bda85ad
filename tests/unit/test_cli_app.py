"""The command line as a whole: help, usage, errors, JSON, exit codes."""

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.ui.cli import app, crash, explain
from genba.ui.cli.app import COMMANDS, help_text, run_command
from genba.ui.cli.line_report import bounds

HEAVY = ("torch", "polars", "pyarrow", "openvino", "onnxruntime", "sqlalchemy", "sklearn", "numpy")


def run(*argv: str) -> int:
    return run_command(list(argv))


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["explain", "--help"], []])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    program = (
        "import sys; from genba.ui.cli.app import run_command; code = run_command(sys.argv[1:]);"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules];"
        "sys.exit(f'imported: {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "genba" in done.stdout.lower()


def test_the_page_lists_every_command_under_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    page = capsys.readouterr().out
    assert page == help_text()
    for name, (group, _, line) in COMMANDS.items():
        assert f"  {name:<10}{line}" in page
        assert f"\n{group}\n" in page
    assert all(len(line) <= 90 for line in page.splitlines())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_is_what_the_page_says(name: str) -> None:
    _, target, line = COMMANDS[name]
    module, _, function = target.partition(":")
    command = getattr(importlib.import_module(f"genba.ui.cli.{module}"), function)
    assert (inspect.getdoc(command) or "").splitlines()[0] == line
    assert "options" in inspect.signature(command).parameters, "--home and --json everywhere"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "--home" in text
    assert "--no-json" not in text


@pytest.mark.parametrize(
    ("argv", "what", "tries"),
    [
        (["rnu"], "did you mean run?", "genba run --help"),
        (["zzzz"], "no command zzzz", "genba --help"),
        (["explain", "G101", "--jsn"], "Did you mean --json", "genba explain --help"),
        (["check"], "needs a line file", "genba check pump.toml"),
        (["run"], "needs a line file", "genba run pump.toml"),
        (["new", "pump"], "needs data", 'genba new pump --from "data/*.csv"'),
    ],
)
def test_bad_usage_exits_2_and_says_what_to_type(
    argv: list[str], what: str, tries: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error G110  ")
    assert what in " ".join(shown.err.split())
    assert tries in shown.err
    assert "Traceback" not in shown.err


def test_a_problem_as_json_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "nothing.toml", "--json") == 2
    shown = capsys.readouterr()
    assert shown.err == ""
    found = json.loads(shown.out)
    assert (found["format"], found["exit_code"]) == (1, 2)
    assert set(found["problem"]) == {"code", "what", "where", "why", "try"}


def test_every_answer_as_json_has_the_same_frame(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "--json") == 0
    found = document(capsys)
    assert (found["format"], found["command"], found["exit_code"]) == (1, "explain", 0)
    assert found["next"]
    assert found["codes"]["G101"]


def patch(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(**_: Any) -> None:
        raise error

    monkeypatch.setattr(explain, "titles", broken)


def test_what_nobody_foresaw_becomes_a_page_and_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    patch(monkeypatch, ZeroDivisionError("by zero"))
    assert run("explain") == 3
    shown = capsys.readouterr().err
    assert "error G999" in shown
    assert "Traceback" not in shown
    (kept,) = (home / "crashes").iterdir()
    text = kept.read_text()
    assert "ZeroDivisionError: by zero" in text
    assert "arguments: explain" in text


@pytest.mark.parametrize("argv", [("--home", "{}"), ("--home={}",)])
def test_the_traceback_goes_to_the_home_that_was_asked_for(
    argv: tuple[str, ...], tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    where = crash.keep_traceback("trace", ["status", *(a.format(asked) for a in argv)])
    assert Path(where).parent == asked / "crashes"


def test_a_home_that_cannot_be_written_does_not_hide_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("GENBA_HOME", str(blocked))
    where = crash.keep_traceback("the trace", [])
    assert Path(where).read_text().endswith("the trace")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(blocked))
    assert crash.keep_traceback("the trace", []) == "printed above"
    assert "the trace" in capsys.readouterr().err


def test_an_interrupt_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch(monkeypatch, KeyboardInterrupt())
    assert run("explain") == 130
    assert "continues where it stopped" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    silenced = []
    monkeypatch.setattr("os.dup2", lambda _new, old: silenced.append(old))
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)
    patch(monkeypatch, BrokenPipeError())
    assert run("explain") == 0
    assert silenced == [1]


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ImportError("Cannot import")
    missing.__cause__ = ModuleNotFoundError("no openvino", name="openvino.runtime")
    patch(monkeypatch, missing)
    assert run("explain") == 3
    shown = capsys.readouterr().err
    assert "error G901" in shown
    assert 'pip install "genba[openvino]"' in shown


def test_a_missing_module_of_genba_is_a_mistake_of_genba(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch(monkeypatch, ModuleNotFoundError("no genba.x", name="genba.x"))
    assert run("explain") == 3
    assert "error G999" in capsys.readouterr().err


def test_python_m_genba_exits_with_the_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "genba", "check", "nothing.toml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(app.__file__).parents[3]), "NO_COLOR": "1"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error G101")


class Screen:
    """Stands for a terminal."""

    @staticmethod
    def isatty() -> bool:
        return True


@pytest.mark.parametrize("code", ["G102", "g102"])
def test_explain_prints_the_page(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", code) == 0
    assert capsys.readouterr().out.startswith("# G102: A setting has a name")


def test_explain_on_a_terminal_is_set_in_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = ModuleType("sys")
    fake.stdout = Screen()  # type: ignore[attr-defined]  # all that explain looks at
    monkeypatch.setattr(explain, "sys", fake)
    assert run("explain", "G102") == 0
    assert "# G102" not in capsys.readouterr().out


def test_explain_of_an_unknown_code_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "G1O2") == 2
    assert "genba explain G1" in capsys.readouterr().err
    assert run("explain", "nonsense") == 2


LINE = 'name = "pump"\ntask = "sensor.anomaly"\n[data]\nsource = "files:pump.csv"\n'


def test_check_shows_what_is_stated_and_what_is_derived(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pump.toml"
    file.write_text(LINE + "[gates]\nr2 = { min = 0.9 }\n[target]\nengines = ['onnxruntime']\n")
    assert run("check", str(file), "--set", "data.label=bad", "--set", "train.seed=4") == 0
    shown = capsys.readouterr().out
    assert "r2 at least 0.9" in shown
    assert "what is not said here" in shown
    assert f"genba run {file}" in shown
    assert run("check", str(file), "--set", "data.label=bad", "--json") == 0
    assert document(capsys)["line"]["data"]["label"] == "bad"


def test_check_can_write_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--schema") == 0
    assert document(capsys)["title"] == "Genba line file"
    assert run("check", "--schema", "--json") == 0
    assert document(capsys)["schema"]["title"] == "Genba line file"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1, None, "at least 1"),
        (None, 2, "at most 2"),
        (1, 2, "between 1 and 2"),
        (None, None, "measured, not limited"),
    ],
)
def test_gates_are_written_as_people_say_them(low: float, high: float, text: str) -> None:
    assert bounds(low, high) == text


def test_problems_of_gates_are_no_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch(monkeypatch, Problem("G501", "Nothing waits.", why="a\nb", tries=["genba status"]))
    assert run("explain") == 1
    assert capsys.readouterr().err.startswith("no G501  Nothing waits.\n  why    a\n         b\n")
