"""`python -m genba.serve`: the server as a process of its own, or several on one port."""

import argparse
import json
import os
import signal
import sys
import threading
from typing import Any, Final

from genba.core.problem import Problem
from genba.serve.process.fleet import Fleet, count
from genba.serve.server import serve
from genba.serve.settings import Settings, add_arguments, read
from genba.serve.watch import logs

_LOOK_S: Final = 0.5
_ALONE: Final = "1"


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; return the exit code.

    GENBA_SERVE_BEHIND_TLS=1 says the same as --behind-proxy.
    """
    parser = argparse.ArgumentParser(prog="python -m genba.serve", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--processes", default=_ALONE, help="a number, or auto: by measurement")
    given = parser.parse_args(arguments)
    logs.install()
    settings = read(given)
    try:
        if given.processes == _ALONE:
            serve(settings)
        else:
            _serve_together(settings, given.processes)
    except Problem as problem:
        sys.stderr.write(json.dumps({"problem": problem.to_json()}, ensure_ascii=False) + "\n")
        return problem.exit_code
    return 0


def _serve_together(settings: Settings, processes: str) -> None:
    """Look after several processes until SIGTERM or SIGINT; SIGHUP renews them one by one."""
    stop, renew = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: renew.set())
    fleet = Fleet(settings, count(processes))
    ready: dict[str, Any] = fleet.start()
    try:
        sys.stdout.write(json.dumps({**ready, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        while not stop.wait(_LOOK_S):
            news = fleet.renew() if renew.is_set() else fleet.look_after()
            renew.clear()
            if news:
                sys.stderr.write(news + "\n")
    finally:
        fleet.stop()


if __name__ == "__main__":
    sys.exit(main())
