"""One real server for everything hostile, with a line of sensors and a line of images."""

from collections.abc import Iterator

import pytest

from genba.store.home import Store
from genba.testing.serving import (
    RunningServer,
    image_package,
    place,
    running_server,
    small_package,
)

#: Limits that do not make a test wait for a slow client.
SERVER = """
import sys
from pathlib import Path
from genba.serve.limits import Limits
from genba.serve.server import serve
from genba.serve.settings import Settings
limits = Limits(head_s=0.5, body_s=0.5, idle_s=5.0, write_s=1.0, linger_s=0.3, connections=64)
serve(Settings(home=Path(sys.argv[2]), port=0, grpc_port=0, limits=limits))
"""


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("hostile") / "genba"
    with Store.open(home) as store:
        place(store, "pump", "deploy", small_package(store, "pump"))
        place(store, "parts", "deploy", image_package(store, "parts"))
    with running_server(home, command=("-c", SERVER)) as server:
        yield server
        assert server.stop() == 0
