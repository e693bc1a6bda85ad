"""Probing over ssh, with a real sshd on loopback: it works, it is refused, it goes away."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from genba.core.problem import Problem
from genba.engines.onnxruntime import OnnxRuntime
from genba.targets.devices import ProbedDevice
from genba.targets.probing import Where, probe_target
from genba.targets.profile import read_profile, write_profile
from genba.testing.graphs import small_batch, small_graph

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SSHD or not shutil.which("ssh"), reason="sshd is not installed"),
]


@dataclass(frozen=True)
class Server:
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def reach(self, key: str = "mine") -> tuple[str, ...]:
        quiet = ("-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no")
        known = ("-o", f"UserKnownHostsFile={self.folder / 'known'}", "-o", "IdentitiesOnly=yes")
        where = ("-p", str(self.port), "-i", str(self.folder / key))
        return ("ssh", *quiet, *known, *where, f"{getpass.getuser()}@127.0.0.1")

    def sessions(self) -> list[int]:
        """The processes that sshd started, one for each connection."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    assert SSHD is not None
    for key in ("host", "mine", "stranger"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)]
        subprocess.run(words, check=True)
    (tmp_path / "authorized").write_bytes((tmp_path / "mine.pub").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "authorized",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "PermitUserEnvironment": "no",
    }
    config = tmp_path / "config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd as root locks itself in
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield Server(port, tmp_path, process)
    process.terminate()
    process.wait()


def test_a_device_is_probed_over_ssh_and_engines_are_measured_there(
    server: Server, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    reach = (*server.reach(), "env", f"PYTHONPATH={root}")
    found = probe_target("line7", Where(reach=reach, python=sys.executable), seconds=1.0)
    assert {rate.engine for rate in found.rates} >= {"numpy", "onnxruntime"}
    assert abs(found.clock_offset_s) <= found.clock_band_s + 0.1
    kept = read_profile(write_profile(tmp_path / "home", found), tmp_path / "home")
    engine = OnnxRuntime(small_graph(), {"precision": "float32", "threads": 1})
    measured = ProbedDevice(kept, seconds=0.05).measure(engine, small_batch(20))
    assert measured["latency_ms_p99"].value > 0
    assert measured["energy_mj"].method in ("modelled", "measured")


def test_a_key_that_is_not_known_there_is_refused(server: Server) -> None:
    with pytest.raises(Problem) as caught:
        probe_target("line7", Where(reach=server.reach("stranger")), seconds=1.0)
    assert caught.value.code == "G613"
    assert "Permission denied" in caught.value.why


def test_it_goes_away_in_the_middle(server: Server) -> None:
    def pull() -> None:
        for pid in server.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    puller = threading.Timer(2.0, pull)
    puller.start()
    with pytest.raises(Problem) as caught:
        probe_target("line7", Where(reach=server.reach(), python=sys.executable), seconds=20.0)
    puller.join()
    assert caught.value.code == "G613"
    assert "127.0.0.1" in caught.value.where
