"""`python -m genba.serve`: the server as a process of its own."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from genba.core.problem import Problem
from genba.serve.server import DEFAULT_PORT, Settings, serve


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; return the exit code.

    The key, if one is needed, is read from GENBA_SERVE_KEY: a command line is visible to others.
    GENBA_SERVE_BEHIND_TLS=1 says that a proxy in front of the server speaks TLS.
    """
    parser = argparse.ArgumentParser(prog="python -m genba.serve", description=__doc__)
    parser.add_argument("--home", type=Path, default=None, help="$GENBA_HOME or ./.genba")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free port")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    settings = Settings(
        home=given.home,
        host=given.host,
        port=given.port,
        key=os.environ.get("GENBA_SERVE_KEY") or None,
        behind_tls=os.environ.get("GENBA_SERVE_BEHIND_TLS") == "1",
    )
    try:
        serve(settings)
    except Problem as problem:
        sys.stderr.write(json.dumps({"problem": problem.to_json()}, ensure_ascii=False) + "\n")
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
