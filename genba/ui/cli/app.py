"""The `genba` command: which commands there are, and what happens to their answers and errors.

Nothing heavy is imported here, so that `genba --help` is quick; each command's module is imported
when the command is used.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from genba import __version__
from genba.catalog import EXTRAS
from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.ui.cli.answer import Answer, make_console, write_json
from genba.ui.cli.crash import keep_traceback
from genba.ui.cli.problems import render_problem

INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 0

_INTRODUCTION: Final = """\
Genba: an open AI factory. One line file takes raw data to a deployed, watched,
self-improving model, at a known cost.

  genba new pump --from "data/*.csv"   write a line file by looking at the data
  genba run pump.toml                  check, train, gate, measure, package, deploy
  genba up                             serve it and keep it good

Usage: genba COMMAND [OPTIONS]         genba COMMAND --help says more
"""

_CLOSING: Final = """\
Every command takes --json and --home FOLDER.
Exit codes: 0 done, 1 the answer is no, 2 usage, 3 something is missing, 4 budget
spent, 130 interrupted (run it again and it continues).
"""

_MAKE, _OPERATE, _ASK = "Make", "Operate", "Ask"

# Name -> (group, "module:function", first line of its help). Written here as well as in the
# docstring because the help must not import the module; a test compares the two.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "init": (_MAKE, "begin:init", "Make the factory's home here, with an example line."),
    "new": (_MAKE, "new:new", "Write a line, shipped or guessed from data, or a kind of your own."),
    "check": (_MAKE, "check:check", "Check a line without running it, or a kind by its contract."),
    "run": (_MAKE, "run:run", "Run a line from data to a deployed package."),
    "codesign": (
        _MAKE,
        "codesign:codesign",
        "Find the best runtime, precision, threads and model size on a target.",
    ),
    "port": (_MAKE, "port:port", "Take a line to another target, and show what that changes."),
    "demo": (_MAKE, "demo:demo", "Show the whole closed loop on real wind-turbine records."),
    "up": (_OPERATE, "up:up", "Serve every deployed package and keep the lines good."),
    "predict": (_OPERATE, "predict:predict", "Ask a line for predictions."),
    "chat": (_OPERATE, "chat:chat", "Talk to a line that has a language model."),
    "export": (
        _OPERATE,
        "export:export",
        "Write what a line has in service for KServe, or for devices (edge).",
    ),
    "edge": (
        _OPERATE,
        "edge:edge",
        "Publish releases to devices, and decide what runs where.",
    ),
    "feedback": (_OPERATE, "feedback:feedback", "Tell a line what was true."),
    "label": (_OPERATE, "feedback:label", "Show which predictions would teach a line most."),
    "approve": (_OPERATE, "rollout:approve", "Decide on what waits for a person."),
    "tune": (_OPERATE, "tune:tune", "Change a parameter in service, or show them."),
    "distil": (_MAKE, "distil:distil", "Let a larger model answer, and write data to learn from."),
    "flywheel": (
        _OPERATE,
        "flywheel:flywheel",
        "Let a small model answer what it answers as well as the large one.",
    ),
    "rollback": (_OPERATE, "rollout:rollback", "Return to the package before, at once."),
    "documents": (_OPERATE, "documents:documents", "Say what an assistant answers from."),
    "keys": (_OPERATE, "keys:keys", "Say who may ask the server, and for what."),
    "status": (_ASK, "status:status", "Show what every line is doing and what happens next."),
    "trace": (_ASK, "trace:trace", "Walk from a prediction back to the rows that made it."),
    "rails": (_ASK, "rails:rails", "Show what the rails of an assistant have closed on."),
    "models": (_ASK, "versions:models", "List model versions and packages."),
    "data": (_ASK, "datasets:data", "List dataset versions, or show the sheet of one."),
    "targets": (
        _ASK,
        "targets:targets",
        "List the devices that packages can be made for, or measure one.",
    ),
    "doctor": (_ASK, "doctor:doctor", "Check this machine and, with --verify, the ledger."),
    "safety": (
        _ASK,
        "safety:safety",
        "Inject faults into a line's package, with and without its safety envelope.",
    ),
    "explain": (_ASK, "explain:explain", "Explain an error code, or list them all."),
}


def make_app() -> App:
    """Return the application with every command registered by name only."""
    app = App(
        name="genba",
        help=_INTRODUCTION,
        version=f"genba {__version__}",
        help_format="plaintext",
        result_action="return_value",
        default_parameter=Parameter(negative=(), show_default=False),
    )
    for name, (group, target, help_line) in COMMANDS.items():
        app.command(f"genba.ui.cli.{target}", name=name, group=group, help=help_line)
    return app


def help_text() -> str:
    """Return the page of `genba --help`: every command under its group."""
    groups: dict[str, list[str]] = {}
    for name, (group, _, line) in COMMANDS.items():
        groups.setdefault(group, []).append(f"  {name:<10}{line}")
    middle = "\n\n".join("\n".join([group, *lines]) for group, lines in groups.items())
    return f"{_INTRODUCTION}\n{middle}\n\n{_CLOSING}"


def run_command(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing is raised at the user."""
    as_json = "--json" in argv
    try:
        return _dispatch(list(argv), as_json)
    except Problem as problem:
        return _show(problem, as_json)
    except KeyboardInterrupt:
        make_console(stderr=True).print("interrupted; the same command continues where it stopped")
        return INTERRUPTED
    except BrokenPipeError:  # `genba status | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as unexpected:  # noqa: BLE001  the last resort: a page and a file, no traceback
        return _show(_unexpected(unexpected, argv), as_json)


def _dispatch(argv: list[str], as_json: bool) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        sys.stdout.write(help_text())
        return 0
    if argv[0] not in COMMANDS and not argv[0].startswith("-"):
        raise _unknown_command(argv[0])
    try:
        command, bound, _ = make_app().parse_args(
            argv, print_error=False, exit_on_error=False, help_on_error=False
        )
    except CycloptsError as error:
        raise _usage(error, argv) from error
    answer: Any = command(*bound.args, **bound.kwargs)
    if not isinstance(answer, Answer):  # --help and --version print by themselves
        return 0
    if as_json:
        answer.print_json(argv[0])
    else:
        answer.print_text()
    sys.stdout.flush()
    return answer.exit_code


def _unknown_command(word: str) -> Problem:
    near = nearest(word, list(COMMANDS))
    return Problem(
        "G110",
        f"There is no command {word}" + (f"; did you mean {near}?" if near else "."),
        tries=[f"genba {near} --help" if near else "genba --help"],
    )


def _usage(error: CycloptsError, argv: list[str]) -> Problem:
    command = argv[0] if argv[0] in COMMANDS else ""
    what = " ".join(str(error).split())
    if isinstance(error, MissingArgumentError) and error.argument and not error.keyword:
        what = f"genba {command} needs {error.argument.name}."
    return Problem(
        "G110",
        what,
        where=f"genba {' '.join(argv)}",
        tries=[f"genba {command} --help" if command else "genba --help"],
    )


def _missing_library(error: ImportError) -> Problem | None:
    """Return the problem behind an import that failed in somebody else's package."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__
    root = (getattr(cause, "name", None) or "").partition(".")[0]
    if root in ("", "genba"):
        return None
    return Problem(
        "G901",
        f"This command needs the library {root}, which is not installed.",
        tries=[f'pip install "genba[{EXTRAS[root]}]"' if root in EXTRAS else f"pip install {root}"],
    )


def _unexpected(error: Exception, argv: Sequence[str]) -> Problem:
    if isinstance(error, ImportError) and (missing := _missing_library(error)):
        return missing
    kept = keep_traceback("".join(traceback.format_exception(error)), argv)
    return Problem(
        "G999",
        f"Genba failed in a way it should not have: {type(error).__name__}: {error}",
        where=kept,
        why="This is a mistake in Genba, not in what you did; what was finished is kept.",
        tries=["genba doctor --verify", "genba explain G999"],
    )


def _show(problem: Problem, as_json: bool) -> int:
    if as_json:
        write_json({"format": 1, "exit_code": problem.exit_code, "problem": problem.to_json()})
    else:
        console = make_console(stderr=True)
        console.print(render_problem(problem, console.width), soft_wrap=True)
    return problem.exit_code
