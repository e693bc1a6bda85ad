"""The other end of `ProcessExecutor`: a request in, progress and an answer out, as JSON lines."""

import json
import os
import signal
import sys
import threading
import traceback
from typing import Any, TextIO

from genba.core.problem import Problem
from genba.runs.executor import CHANNEL, find_function


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run a request and say what came of it."""
    try:
        return {"result": find_function(request["function"])(request["payload"])}
    except Problem as problem:
        return {"problem": problem.to_json()}
    except Exception as error:  # noqa: BLE001  the parent must hear of every failure
        traceback.print_exc()
        return {"crash": f"{type(error).__name__}: {error}"}


def _die_with_parent(stdin: TextIO) -> None:
    stdin.read()  # returns when the parent has closed it, or is gone
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Answer one request from standard input."""
    channel = os.fdopen(int(os.environ[CHANNEL]), "w", encoding="utf-8")
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, args=(sys.stdin,), daemon=True).start()
    channel.write(json.dumps(answer(request)) + "\n")
    channel.flush()
    os._exit(0)  # the thread waits on standard input; nothing else is left to do


if __name__ == "__main__":
    main()
