"""A release on a device that has nothing but numpy, onnxruntime, cryptography and the wheel.

And OpenSSF's own command, which verifies what we sign and refuses what somebody changed.
"""

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import pytest

from genba.core.line import Safety
from genba.core.problem import Problem
from genba.data.view import DatasetView
from genba.edge.oms import verify
from genba.edge.predict import golden_samples
from genba.stages.assurance import assure
from genba.stages.edge_export import Exported, Order, export_edge
from genba.stages.pipeline import run_line
from genba.store.home import Store
from genba.store.oms import PUBLIC_FILE, home_key
from genba.testing.serving import place
from tests.chaos.edge_tampering import KINDS, PEER_ACCEPTS, World
from tests.farm import farm_line, write_farm
from tests.unit.edge_releases import add_package, copied, pump_home, released

ROOT = Path(__file__).parents[2]
PEERS = (ROOT / "benchmarks" / ".peers", Path("/tmp/peers"))  # environments of their own
ALONE: Final = ("numpy", "onnxruntime", "cryptography")
#: What those three bring with them.
BROUGHT: Final = ("_cffi_backend", "cffi", "google", "flatbuffers", "packaging")
UNWANTED: Final = frozenset(
    ["PIL", "asyncio", "cyclopts", "msgspec", "onnx", "polars", "pyarrow", "rich", "safetensors"]
    + ["sklearn", "sqlalchemy", "torch"]
)
_MODULES: Final = """
import sys
from genba.edge.cli.app import run_command
code = run_command(sys.argv[1:])
known = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
sys.stderr.write("modules " + " ".join(sorted(known)))
sys.exit(code)
"""
_PEER: Final = """
import json, pathlib, sys
from model_signing import verifying
for folder in json.load(sys.stdin):
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=sys.argv[1]).verify(
            pathlib.Path(folder), pathlib.Path(folder, "model.sig"))
        print("accepted")
    except Exception as error:
        print("refused", type(error).__name__)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Exported, Path]:
    root = tmp_path_factory.mktemp("world")
    store = pump_home(root / "home")
    older = released(store, root / "older")
    place(store, "pump", "deploy", add_package(store, seed=1))
    return older, released(store, root / "newer"), root / "home" / PUBLIC_FILE


@pytest.fixture(scope="module")
def device(
    world: tuple[Exported, Exported, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a script on a device whose only libraries are links to three of ours."""
    site = tmp_path_factory.mktemp("device") / "site"
    site.mkdir()
    here = Path(str(distribution("numpy").locate_file("")))
    for name in (*ALONE, *BROUGHT):
        for path in here.glob(f"{name}*"):
            if path.name == name or path.name.startswith(f"{name}."):
                (site / path.name).symlink_to(path)
    (wheel,) = (world[1].release.folder / "runtime").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)

    def run(*argv: object) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(site),
            "HOME": str(site.parent),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "-S", "-B", "-W", "error", "-c", _MODULES, *map(str, argv)],
            env=environment, cwd=site.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_a_device_with_three_libraries(
    world: tuple[Exported, Exported, Path],
    device: Callable[..., "subprocess.CompletedProcess[str]"],
    tmp_path: Path,
) -> None:
    older, newer, public = world
    folder = newer.release.folder
    assert device("verify", folder).returncode == 3
    assert device("trust", public, "--fingerprint", newer.key.fingerprint).returncode == 0
    done = device("verify", folder)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" not in done.stderr, "verifying needs no engine"
    done = device("predict", folder, "--sample", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["outputs"]["alarm"]) == 4
    loaded = set(done.stderr.split()[1:])
    assert {"genba", *ALONE} <= loaded
    assert not loaded & UNWANTED
    refused = device("predict", older.release.folder, "--sample", "--json")
    assert json.loads(refused.stdout)["problem"]["code"] == "G674"
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_pip_installs_the_wheel(world: tuple[Exported, Exported, Path], tmp_path: Path) -> None:
    if find_spec("pip") is None:
        pytest.skip("pip is not in this environment")
    (wheel,) = (world[1].release.folder / "runtime").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True, env=environment,
    )  # fmt: skip
    command: list[str | Path] = [tmp_path / "venv" / "bin" / "genba-edge", "--version"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert told.stdout.startswith("genba-edge ")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_line_from_rows_to_a_device(home: Path, tmp_path: Path) -> None:
    """Train, find out what faults do, accept what stays, export, and answer on a device."""
    write_farm(tmp_path / "farm.csv", 120)
    line = farm_line(tmp_path / "farm.csv")
    with Store.open(home) as store:
        made = run_line(line, store)
        assert made.package is not None, made.stop
        order = Order(line="farm", folder=tmp_path / "release")
        view = DatasetView.open(store, str(made.results["prepare"]["dataset"]), line)
        failing = assure(store, made.package, line, view, strict=False)["failing"]
        if failing:
            with pytest.raises(Problem, match="G596"):
                export_edge(store, order)
            run_line(replace(line, safety=Safety(accept=tuple(failing))), store)
        exported = export_edge(store, order)
    release = exported.release
    assert release.package.id == made.package  # what is accepted changes no model
    assert release.safety is not None
    assert release.safety["failing"] == []
    assert [field.name for field in release.interface.fields] == ["wind", "air", "power"]
    assert release.interface.fields[1].limit.max == 60
    assert release.interface.step_ms == 3_600_000
    ready = release.predictor()
    inputs, outputs = golden_samples(release.package)
    found = ready.predict(inputs)
    ready.engine.close()
    assert np.array_equal(found["alarm"], outputs["alarm"])


def peer(name: str, libraries: tuple[str, ...], place: Path) -> Path:
    """Return the Python of an environment with somebody else's tool; made where there is none."""
    for folder in PEERS:
        if (folder / name / "bin" / "python").exists():
            return folder / name / "bin" / "python"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *libraries], check=True)
    return python


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_peer_verifies_ours_and_refuses_what_was_changed(
    world: tuple[Exported, Exported, Path], tmp_path: Path
) -> None:
    older, newer, public = world
    python = peer("oms", ("model-signing==1.1.1", "pyopenssl"), tmp_path / "venv")
    folders = {"untouched": copied(newer.release.folder, tmp_path / "untouched")}
    for kind, tamper in KINDS.items():
        (tmp_path / f"{kind}-aside").mkdir()
        folders[kind] = copied(newer.release.folder, tmp_path / kind)
        attacker = World(older.release.folder, newer.release.folder, tmp_path / f"{kind}-aside")
        tamper(folders[kind], Random(kind), attacker)
    waits = "pipe"  # it would read that for ever
    given = json.dumps([str(folder) for kind, folder in folders.items() if kind != waits])
    told = subprocess.run(
        [python, "-c", _PEER, public], input=given, capture_output=True, text=True, check=True
    )
    kinds = [kind for kind in folders if kind != waits]
    answers = dict(zip(kinds, told.stdout.strip().splitlines(), strict=True))
    accepted = {kind for kind, answer in answers.items() if answer == "accepted"}
    assert accepted == {"untouched", *PEER_ACCEPTS}
    for kind, code in (("untouched", 0), ("flip_a_weight", 1)):
        command: list[str | Path] = [
            *(python.with_name("model_signing"), "verify", "key", folders[kind]),
            *("--signature", folders[kind] / "model.sig", "--public_key", public),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (done.returncode != 0) == (code != 0), done.stdout + done.stderr


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ours_verifies_what_the_peer_signs(tmp_path: Path) -> None:
    python = peer("oms", ("model-signing==1.1.1", "pyopenssl"), tmp_path / "venv")
    key = home_key(tmp_path)
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "b").write_bytes(b"b")
    (folder / "a").write_bytes(b"a")
    command: list[str | Path] = [python.with_name("model_signing"), "sign", "key", folder,
               "--private_key", key.path, "--signature", folder / "model.sig"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    assert verify(folder, lambda _: key.private.public_key()).files.keys() == {"a", "part/b"}


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_bill_of_materials_is_valid(
    world: tuple[Exported, Exported, Path], tmp_path: Path
) -> None:
    python = peer("cdx", ("cyclonedx-python-lib[json-validation]==11.12.0",), tmp_path / "venv")
    script = (
        "import sys\n"
        "from cyclonedx.schema import SchemaVersion\n"
        "from cyclonedx.validation.json import JsonStrictValidator\n"
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()))\n"
    )
    text = (world[1].release.folder / "bom.json").read_text()

    def errors(given: str) -> str:
        done = subprocess.run(
            [python, "-c", script], input=given, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert errors(text) == "None"
    assert errors(text.replace('"activity": "training"', '"activity": "fun"')) != "None"
