"""`genba` commands as a user would type them, in processes of their own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from genba.core.problem import Problem

_WORD: Final = "Genba answers at "
_PATIENCE_S: Final = 60.0


class Factory:
    """`genba up`, running; what it says goes into `up.log` in the home.

    Args:
        home: The home it serves.
        port: Where to answer; 0 takes a free one.

    Raises:
        Problem: G722 when it does not start.
    """

    def __init__(self, home: Path, port: int) -> None:
        self._log = home / "up.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # an argument list made here, no shell
                [sys.executable, "-m", "genba", "up", "--home", str(home), "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.url = self._wait()

    @property
    def pid(self) -> int:
        """The process, for a person who wants to stop it later."""
        return self._process.pid

    def stop(self) -> None:
        """Stop it as Ctrl-C would, and wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE_S)

    def _wait(self) -> str:
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and self._process.poll() is None:
            for line in self._log.read_text().splitlines():
                if _WORD in line:
                    return line.partition(_WORD)[2].strip()
            time.sleep(0.05)
        self.stop()
        raise Problem(
            "G722",
            "genba up did not start.",
            where=str(self._log),
            why=" ".join(self._log.read_text().split()[-60:]) or "It said nothing.",
            tries=[f"genba up --home {self._log.parent}", "genba doctor"],
        )


def ask(home: Path, *words: str) -> dict[str, Any]:
    """Run a `genba` command with --json and return its answer.

    Raises:
        Problem: G722 when the command fails.
    """
    command = [sys.executable, "-m", "genba", *words, "--json", "--home", str(home)]
    done = subprocess.run(  # noqa: S603  # an argument list made here, no shell
        command, capture_output=True, text=True, check=False
    )
    answer = _answer(done.stdout)
    if "problem" in answer or done.returncode not in (0, 1):
        raise Problem(
            "G722",
            f"genba {' '.join(words)} ended with exit code {done.returncode}.",
            where=str(home),
            why=str(answer.get("problem", {}).get("what") or done.stderr.strip()[-500:]),
            tries=[f"genba {' '.join(words)} --home {home}"],
        )
    return answer


def _answer(text: str) -> dict[str, Any]:
    """Return what a command answered; Python itself gives up without an answer."""
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"problem": {}}
    return answer
