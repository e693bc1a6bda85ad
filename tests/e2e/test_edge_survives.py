"""The story of a device on a bad day, with nothing but the edge runtime on it; see `edge_story`."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from genba.stages import edge_export
from genba.stages.edge_export import Order, export_edge
from genba.store.oms import PUBLIC_FILE
from genba.testing.serving import place
from tests.unit.edge_releases import add_package, pump_home

ROOT = Path(__file__).parents[2]
#: What `pip install genba_edge-*.whl[onnxruntime,mqtt,opcua]` brings.
WANTED = ("numpy", "onnxruntime", "cryptography", "paho-mqtt", "asyncua")
#: Makes a disk of some MiB that nobody else sees, and goes with whoever uses it.
INSIDE = 'mount -t tmpfs -o size=4m ring "$1" && shift && exec "$@"'


def closure(names: tuple[str, ...]) -> set[str]:
    """Return distributions with all they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.split(r"[ ;<>=!~\[(]", waiting.pop())[0]
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # of another system or Python
        if name not in found:
            found.add(name)
            waiting += [need for need in needs if "extra ==" not in need]
    return found


def device_site(folder: Path, wheel: Path) -> Path:
    """Return what is installed on the device: the wheel, and links to what it needs."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    for name in sorted(closure(WANTED)):
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files} - {"..", "bin", "__pycache__"}:
            there = Path(str(distribution(name).locate_file(top)))
            if there.exists() and not (folder / top).exists():
                (folder / top).symlink_to(there)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_that_was_acknowledged_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_export, "assure", lambda *_, **__: None)  # minutes of its own
    store = pump_home(tmp_path / "home")
    export_edge(store, Order(line="pump", folder=tmp_path / "older"))
    place(store, "pump", "deploy", add_package(store, seed=1))
    export_edge(store, Order(line="pump", folder=tmp_path / "release"))
    (wheel,) = (tmp_path / "release" / "runtime").glob("*.whl")
    site = device_site(tmp_path / "site", wheel)
    disk = tmp_path / "disk"
    disk.mkdir()
    story = [
        *(sys.executable, "-m", "tests.e2e.edge_story", str(tmp_path / "release")),
        *("--key", str(tmp_path / "home" / PUBLIC_FILE), "--older", str(tmp_path / "older")),
        *("--work", str(tmp_path / "work"), "--site", str(site)),
        *("--python", f"{shlex.quote(sys.executable)} -S -B"),
    ]
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", INSIDE, "sh", str(disk)]
    if shutil.which("unshare") and not subprocess.run([*unshare, "true"], check=False).returncode:
        story = [*unshare, *story, "--small-disk", str(disk)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        story, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 lost;" in done.stdout
    assert "the older release is refused" in done.stdout
    state = json.loads((tmp_path / "work" / "state" / "health.json").read_text())
    assert state["lost"] == 0
    loaded = {path.name for path in site.iterdir()}
    assert not loaded & {"torch", "polars", "pyarrow", "sqlalchemy", "sklearn", "onnx"}
