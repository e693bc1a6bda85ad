"""Schemathesis reads our own OpenAPI document and tries what it allows and what it does not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genba.testing.serving import RunningServer
from tests.hostile.wire import connect, good

pytest.importorskip("schemathesis")

_PROGRAM = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
#: A busy server may say 503, and 504 to who has no patience; neither is a mistake.
_CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
"""
_CASES = re.compile(r"(\d+) generated")


def run(server: RunningServer, folder: Path, *more: str) -> tuple[int, str]:
    """Run Schemathesis; return the number of requests it made up, and what it says.

    What would put a line out of memory is left to others: then 503 is the right answer to
    everything. A request that the document allows may still be refused for what it holds.
    """
    command = [
        "run", f"{server.url}/openapi.json", "--seed", "1", "--no-color",
        "--generation-database", "none", "--exclude-path-regex", "/unload$",
        "--exclude-checks", "positive_data_acceptance", "--warnings", "off", *more,
    ]  # fmt: skip
    (folder / "schemathesis.toml").write_text(_CONFIG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    counted = _CASES.search(done.stdout)
    return int(counted[1]) if counted else 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_our_own_description_holds(victim: RunningServer, tmp_path: Path) -> None:
    count, _ = run(victim, tmp_path, "-n", "60", "--phases", "coverage,fuzzing")
    assert count > 1_500
    with connect(victim.port) as friend:
        assert good(friend).status == 200
