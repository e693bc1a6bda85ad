"""`genba-edge`: which commands there are, and what happens to their answers and errors.

Only the command that was asked for is imported, so that the others' libraries need not be there.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from genba import __version__
from genba.catalog import EDGE_COMMANDS, EDGE_IMPORTS
from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.edge.cli.answer import Said, write_problem

INTERRUPTED: Final = 130
KIND: Final = "edge-command"
_WHEEL: Final = f"genba_edge-{__version__}-py3-none-any.whl"
_STATE: Final = "GENBA_EDGE"
_HELP: Final = """\
genba-edge: verify, test and run the releases of a Genba factory on a device.

Usage: genba-edge COMMAND [OPTIONS]         genba-edge COMMAND --help says more

Commands: {commands}

Every command takes --state FOLDER (default: $GENBA_EDGE, else ~/.genba-edge), where the device
keeps its keys and what releases it had, and --json.
Exit codes: 0 done, 1 the answer is no, 2 usage, 3 refused or something is missing.
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in our own words."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process."""
        raise Problem(
            "G110",
            f"{self.prog}: {message}.",
            tries=[f"{self.prog} --help"],
        )


def main() -> NoReturn:
    """Run the command line of this process."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing is raised at the user."""
    as_json = "--json" in argv
    try:
        return _dispatch(list(argv))
    except Problem as problem:
        shown = _missing(problem.__cause__) or problem
        write_problem(shown, as_json=as_json)
        return shown.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as unexpected:  # noqa: BLE001  the last resort: a sentence, no traceback
        shown = _unexpected(unexpected)
        write_problem(shown, as_json=as_json)
        return shown.exit_code


def state_folder(environment: "os._Environ[str]" = os.environ) -> Path:
    """Return where a device keeps its keys and its memory."""
    named = environment.get(_STATE)
    return Path(named) if named else Path.home() / ".genba-edge"


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        sys.stdout.write(_HELP.format(commands=", ".join(EDGE_COMMANDS)))
        return 0
    if argv[0] == "--version":
        sys.stdout.write(f"genba-edge {__version__}\n")
        return 0
    name = argv[0]
    if name not in EDGE_COMMANDS:
        near = nearest(name, list(EDGE_COMMANDS))
        raise Problem(
            "G110",
            f"There is no command {name}" + (f"; did you mean {near}?" if near else "."),
            why=f"Known: {', '.join(EDGE_COMMANDS)}.",
            tries=[f"genba-edge {near} --help" if near else "genba-edge --help"],
        )
    command: Any = resolve(KIND, name)
    parser = _Parser(prog=f"genba-edge {name}", description=command.help, allow_abbrev=False)
    command.arguments(parser)
    parser.add_argument("--state", type=Path, default=state_folder(), help="the device's folder")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    given = parser.parse_args(argv[1:])
    said: Said = command.run(given)
    if given.json:
        said.print_json(name)
    else:
        said.print_text()
    sys.stdout.flush()
    return said.exit_code


def _unexpected(error: Exception) -> Problem:
    return _missing(error) or Problem(
        "G999",
        f"genba-edge failed in a way it should not have: {type(error).__name__}: {error}",
        why="This is a mistake in Genba, not in what you did; nothing was half-written.",
        tries=["genba-edge verify DIR", "genba explain G999"],
    )


def _missing(error: BaseException | None) -> Problem | None:
    """Return the Problem of a library that is not on this device, if that is what went wrong."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    root = (name or "").partition(".")[0]
    if root in ("", "genba"):
        return None
    extra = EDGE_IMPORTS.get(root)
    return Problem(
        "G901",
        f"This needs the library {root}, which is not on this device.",
        tries=[
            f'pip install "DIR/runtime/{_WHEEL}[{extra}]"' if extra else f"pip install {root}",
            "genba explain G901",
        ],
    )
