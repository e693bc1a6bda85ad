"""`genba check NAME`: an entry of the catalog by its contract, and what is no such name."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from genba.core import resolve
from genba.core.problem import Problem
from genba.testing import kit
from genba.testing.checks import CheckResult
from genba.ui.cli import check as command
from genba.ui.cli.app import run_command

GOOD = CheckResult(name="says its version", passed=True, seconds=0.1)
BAD = CheckResult(name="offers settings", passed=False, reason="the engine has no name")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[CheckResult]:
    """What the contract finds, whatever is asked; a test fills it."""
    found: list[CheckResult] = []
    monkeypatch.setattr(command, "check_contract", lambda *_: tuple(found))
    return found


def test_an_engine_is_run_through_its_contract(ask: Any, here: Path) -> None:
    code, found = ask("check", "faulty")
    assert (code, found["ok"], found["kind"], found["name"]) == (0, True, "engine", "faulty")
    assert len(found["checks"]) == 14
    assert {"name", "passed", "reason", "seconds"} == set(found["checks"][0])


def test_every_check_is_named_with_its_reason(results: list[CheckResult], show: Any) -> None:
    results += [GOOD, BAD]
    shown = show("check", "openvino")
    assert "✗ The engine openvino fails 1 of 2 checks" in shown
    assert "✓   says its version" in shown
    assert "✗   offers settings    the engine has no name" in shown


@pytest.mark.parametrize(("found", "code"), [([GOOD], 0), ([GOOD, BAD], 1)])
def test_the_exit_code_is_the_answer(
    results: list[CheckResult], ask: Any, found: list[CheckResult], code: int
) -> None:
    results += found
    answered, said = ask("check", "openvino")
    assert (answered, said["ok"], said["exit_code"]) == (code, code == 0, code)


def test_a_source_reads_the_address_it_is_given(ask: Any, here: Path) -> None:
    (here / "a.csv").write_text("time,flow\n2024-01-01,1.5\n2024-01-02,2.5\n")
    code, found = ask("check", "files", "--address", "a.csv")
    assert code == 0
    assert [c["name"] for c in found["checks"]][-1] == "nothing there is a Problem"


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["openvin"], "G105", "did you mean openvino?"),
        (["nothing-like-it"], "G101", "The line file nothing-like-it does not exist."),
        (["nothing.toml"], "G101", "does not exist"),
        (["lines/files"], "G101", "does not exist"),
        (["pump.toml", "--address", "a.csv"], "G110", "this is a line file"),
        (["openvino", "--address", "a.csv"], "G110", "openvino is none"),
        (["openvino", "--set", "train.seed=1"], "G110", "an entry of the catalog"),
        ([], "G110", "needs a line file, or a name of the catalog"),
    ],
)
def test_what_cannot_be_checked_says_what_to_type(
    argv: list[str], code: str, says: str, ask: Any, here: Path
) -> None:
    answered, found = ask("check", *argv)
    assert answered == 2
    assert found["problem"]["code"] == code
    assert says in found["problem"]["what"]
    assert found["problem"]["try"]


def test_a_file_wins_over_a_name(ask: Any, here: Path) -> None:
    text = 'name = "a"\ntask = "sensor.anomaly"\n[data]\nsource = "files:a.csv"\n'
    (here / "openvino").write_text(text)
    code, found = ask("check", "openvino")
    assert (code, found["file"]) == (0, "openvino")


def test_a_package_that_is_not_installed_is_to_be_installed(ask: Any, here: Path) -> None:
    (here / "historian").mkdir()
    (here / "historian" / "pyproject.toml").touch()
    code, found = ask("check", "historian")
    assert (code, found["problem"]["code"]) == (2, "G105")
    assert found["problem"]["try"][0] == "pip install -e ./historian"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("genba.ui.cli.answer:Nothing", "AttributeError: "),
        ("genba.ui.cli.answer:Answer", "AttributeError: "),
    ],
)
def test_a_broken_class_of_another_package_is_a_finding(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "names", lambda _kind: {"broken": address})
    (found,) = kit.check("engine", "broken")
    assert not found.passed
    assert found.reason.startswith(reason)


def test_a_task_and_a_source_may_bring_an_example(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resolve, "names", lambda _kind: {"silent": "silent:Silent"})
    module = ModuleType("silent")
    module.Silent = object  # type: ignore[attr-defined]  # a module as a test needs it
    monkeypatch.setitem(sys.modules, "silent", module)
    for kind in ("task", "source"):
        with pytest.raises(Problem) as refused:
            kit.check(kind, "silent")
        assert refused.value.code == "G610"
        assert "no method `example`" in refused.value.why


def test_the_help_says_what_may_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["check", "--help"]) == 0
    assert "task, an engine, a source or a target" in " ".join(capsys.readouterr().out.split())
