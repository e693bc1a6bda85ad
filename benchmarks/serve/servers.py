"""The servers that are compared: how each is installed, started and asked."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.serve import home
from benchmarks.serve.asks import (
    Maker,
    base64_json,
    below,
    oip_binary,
    oip_json,
    plain_json,
    raw,
    row_json,
)
from benchmarks.serve.machine import cores
from benchmarks.serve.processes import Launched

HERE: Final = Path(__file__).parent
PEERS: Final = HERE.parent / ".peers"
SCRIPTS: Final = HERE / "peers"
RUNTIME: Final = "onnxruntime==1.31.1"
PER_CORE: Final = "one process per core"
_INSTALL_S: Final = 1_200
_DEBIAN_PYTHON: Final = Path("/usr/bin/python3.11")


class NotInstalled(RuntimeError):
    """A peer that cannot be installed here, with what the installer said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One server with the ways in which it can be configured.

    Args:
        name: Short.
        title: As it is shown.
        requirements: Of its environment.
        configurations: Its own names for how it can be set up; the best of them counts.
        makers: Requests by form: json, binary.
        program: What runs in its environment: `python SCRIPT FOLDER`, or another program.
        needs: A program that must be here besides.
        start_s: The longest it may take to answer.
    """

    name: str
    title: str
    makers: Mapping[str, Maker]
    requirements: tuple[str, ...] = ()
    configurations: tuple[str, ...] = ("",)
    program: tuple[str, ...] = ()
    needs: str = ""
    start_s: float = 60.0
    tags: Mapping[str, str] = field(default_factory=dict)  # environment of its own

    @property
    def environment(self) -> Path:
        """Where its environment is."""
        return PEERS / f"serve-{self.name}"

    def version(self) -> str:
        """Return what its results belong to: what is installed, and its scripts."""
        if not self.requirements:
            return f"genba {_own_digest()}"
        return f"{' '.join(self.requirements)} {_peers_digest()}"

    def launch(self, configuration: str, port: int, folder: Path) -> Launched:
        """Start it.

        Args:
            configuration: One of its own.
            port: Where it shall answer; the next two are free too.
            folder: For its files; the models are beside it in `models`.
        """
        if self.name == "ours":
            more = ("--processes", str(cores())) if configuration == PER_CORE else ()
            return home.launch(folder.parent / "home", port, *more)
        if self.name == "echo":
            command = [sys.executable, "-m", "benchmarks.serve.echo", str(port)]
            return Launched(command, {"PYTHONPATH": str(HERE.parents[1])}, HERE.parents[1])
        if self.needs and not shutil.which(self.needs):
            raise NotInstalled(f"it needs {self.needs}, which is not here")
        folder.mkdir(exist_ok=True)
        programs = self.environment / "bin"
        words = [w.format(folder=folder, port=port, scripts=SCRIPTS) for w in self.program]
        words[0] = str(programs / words[0])
        environment = {
            "BENCH_PORT": str(port),
            "BENCH_CONFIGURATION": configuration,
            "BENCH_MODELS": str(folder.parent / "models"),
            "BENCH_CORES": str(cores()),
            "PYTHONPATH": str(SCRIPTS),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "DO_NOT_TRACK": "1",
            **self.tags,
        }
        return Launched(words, environment, folder)


def _python(server: Server) -> str:
    """Return the Python for an environment; PyTriton's own interpreter wants Debian's."""
    if server.name == "pytriton" and _DEBIAN_PYTHON.exists():
        return str(_DEBIAN_PYTHON)
    return sys.executable


def install(server: Server) -> None:
    """Make the environment of a peer if it is not there.

    Raises:
        NotInstalled: With the last lines of the installer.
    """
    done = server.environment / "installed"
    wanted = "\n".join(server.requirements)
    if not server.requirements or (done.exists() and done.read_text() == wanted):
        return
    print(f"installing {server.title} ...", file=sys.stderr, flush=True)
    shutil.rmtree(server.environment, ignore_errors=True)
    _run([_python(server), "-m", "venv", str(server.environment)])
    pip = [str(server.environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--disable-pip-version-check", *server.requirements])
    done.write_text(wanted)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if "ERROR" in line]
        raise NotInstalled(" ".join(said)[-300:] or f"exit code {done.returncode}")


@functools.cache
def _own_digest() -> str:
    root = HERE.parents[1] / "genba"
    parts = ("serve", "engines", "edge", "store")
    return _digest(sorted(path for part in parts for path in (root / part).rglob("*.py")))


@functools.cache
def _peers_digest() -> str:
    return _digest(sorted(SCRIPTS.glob("*.py")))


def _digest(paths: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


_BATCHED: Final = "adaptive batching"
OURS: Final = Server(
    name="ours",
    title="Genba",
    makers=home.MAKERS,
    configurations=("one process", PER_CORE) if cores() > 1 else ("one process",),
)
ECHO: Final = Server(name="echo", title="echo on the same HTTP stack", makers=home.MAKERS)
PEER_SERVERS: Final = (
    Server(
        name="torchserve",
        title="TorchServe 0.12.0",
        requirements=(
            "torchserve==0.12.0",
            "torch-model-archiver==0.12.0",
            "torch==2.13.0",
            "pyyaml==6.0.3",
            RUNTIME,
        ),
        configurations=("batches, 2 ms",),
        makers={
            "json": below(row_json, "/predictions"),
            "binary": below(raw, "/predictions"),
        },
        program=("python", "{scripts}/torchserve_peer.py", "{folder}"),
        needs="java",
        start_s=90.0,
    ),
    Server(
        name="pytriton",
        title="PyTriton 0.7.0",
        requirements=("nvidia-pytriton==0.7.0", RUNTIME),
        configurations=("dynamic batching",),
        makers=home.MAKERS,
        program=("python", "{scripts}/pytriton_peer.py"),
    ),
    Server(
        name="mlserver",
        title="MLServer 1.7.1",
        requirements=("mlserver==1.7.1", "uvloop==0.21.0", RUNTIME),
        configurations=("no batching", _BATCHED),
        makers={"json": oip_json},
        program=("python", "{scripts}/mlserver_peer.py", "{folder}"),
    ),
    Server(
        name="kserve",
        title="KServe 0.21.0",
        requirements=("kserve==0.21.0", RUNTIME),
        makers={"json": oip_json, "binary": oip_binary},
        program=("python", "{scripts}/kserve_peer.py"),
    ),
    Server(
        name="litserve",
        title="LitServe 0.2.19",
        requirements=("litserve==0.2.19", RUNTIME),
        configurations=("no batching", "batching, zmq"),
        makers={"json": plain_json, "binary": base64_json},
        program=("python", "{scripts}/litserve_peer.py"),
    ),
    Server(
        name="bentoml",
        title="BentoML 1.4.39",
        requirements=("bentoml==1.4.39", RUNTIME),
        configurations=("no batching", _BATCHED),
        makers={"json": plain_json, "binary": below(raw, "", "_raw")},
        program=(
            "bentoml",
            "serve",
            "bentoml_peer:Graphs",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
        ),
        tags={
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",
        },
    ),
    Server(
        name="ray",
        title="Ray Serve 2.60.0",
        requirements=("ray[serve]==2.60.0", RUNTIME),
        configurations=("no batching", "batching"),
        makers={"json": plain_json, "binary": raw},
        program=("python", "{scripts}/ray_peer.py"),
        tags={"RAY_USAGE_STATS_ENABLED": "0"},
        start_s=120.0,
    ),
)
SERVERS: Final = {server.name: server for server in (OURS, ECHO, *PEER_SERVERS)}
