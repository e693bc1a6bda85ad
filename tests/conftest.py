"""Every test: a home of its own, no network but loopback, the same hypotheses in every CI run."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from pytest_socket import socket_allow_hosts

# Children started in other folders find this tree, also where it is not installed.
_ROOT = str(Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))

# Deadlines would be timed assertions; a busy machine must not fail a test.
settings.register_profile(
    "local", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The factory's home of this test; commands and stores find it through GENBA_HOME."""
    path = tmp_path_factory.mktemp("home") / "genba"
    monkeypatch.setenv("GENBA_HOME", str(path))
    for name in ("GENBA_PRICES", "COLUMNS", "LINES"):  # pytest-xdist tells its workers a width
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture(autouse=True)
def only_loopback(request: pytest.FixtureRequest) -> None:
    """Refuse every connection that leaves the machine, unless the test is about the network.

    pytest-socket takes the restriction off again after each test.
    """
    if not request.node.get_closest_marker("network"):
        socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)
