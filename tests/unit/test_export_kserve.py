"""`genba export kserve`: a manifest that KServe takes, and a folder from which a server starts."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.serve.client import Client
from genba.stages.export import export_home
from genba.store.home import Store
from genba.store.signatures import check_own, trusted
from genba.testing.graphs import LAGS, SENSORS
from genba.testing.serving import place, small_package, until
from tests.unit.test_cli_predict import PUMP, add_line

Ask = Callable[..., tuple[int, dict[str, Any]]]
SCHEMA = json.loads(Path(__file__).with_name("kserve_schema.json").read_text())
ROOT = Path(__file__).parents[2]
PEERS = (ROOT / "benchmarks" / ".peers", Path("/tmp/peers"))  # environments of their own
KSERVE = next((p for f in PEERS if (p := f / "kserve" / "bin" / "python").exists()), None)
KEY = "a-key-that-only-this-test-knows-0123456789"
KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
}


def faults(value: Any, schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Say where a value does not fit; a field that the schema does not know is a fault."""
    schema = SCHEMA["parts"][schema["is"]] if "is" in schema else schema
    if "enum" in schema:
        if value not in schema["enum"]:
            yield f"{where} is {value!r}"
        return
    if not isinstance(value, KINDS[schema["type"]]) or isinstance(value, bool) != (
        schema["type"] == "boolean"
    ):
        yield f"{where} is no {schema['type']}"
        return
    if "pattern" in schema and not re.fullmatch(schema["pattern"], str(value)):
        yield f"{where} is {value!r}"
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from faults(one, schema["items"], f"{where}[{index}]")
    if isinstance(value, dict):
        yield from (
            f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value
        )
        for name, one in value.items():
            inner = schema.get("values") or schema.get("properties", {}).get(name)
            if inner is None:
                yield f"{where}.{name} is not known"
            else:
                yield from faults(one, inner, f"{where}.{name}")


@pytest.fixture
def pump(home: Path) -> tuple[Store, str, str]:
    store = Store.open(home)
    add_line(store, PUMP)
    stable, canary = (small_package(store, "pump", seed=seed) for seed in (1, 2))
    other = small_package(store, "pump", seed=3)
    assert other not in (stable, canary)
    place(store, "pump", "deploy", stable)
    place(store, "pump", "canary", canary, share=0.5)
    return store, stable, canary


def test_a_manifest_that_kserve_takes(
    pump: tuple[Store, str, str], tmp_path: Path, ask: Ask
) -> None:
    store, stable, canary = pump
    to = tmp_path / "made"
    code, told = ask("export", "kserve", "pump", "--to", str(to), "--image", "registry/pump:1")
    assert code == 0
    manifest = json.loads((to / "inferenceservice.json").read_text())
    assert list(faults(manifest, SCHEMA, "manifest")) == []
    (container,) = manifest["spec"]["predictor"]["containers"]
    assert container["image"] == "registry/pump:1"
    assert container["env"][0] == {"name": "PROTOCOL", "value": "v2"}
    assert manifest["metadata"]["annotations"]["genba.io/packages"] == f"{stable},{canary}"
    assert told["packages"] == [stable, canary]
    assert told["next"][0] == f"docker build -t registry/pump:1 {to}"
    assert told["secret"] == container["env"][1]["valueFrom"]["secretKeyRef"]["name"]


def test_the_schema_check_can_fail() -> None:
    for wrong, says in (
        ({"kind": "Service"}, "kind"),
        ({"spec": {"predictor": {"containers": [{"image": "x"}]}}}, "name is missing"),
        ({"spec": {"predictor": {"minReplicas": True}}}, "minReplicas is no integer"),
        ({"spec": {"predictor": {"replicas": 1}}}, "replicas is not known"),
        ({"metadata": {"name": "Pump_1"}}, "Pump_1"),
    ):
        whole = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "pump"},
            "spec": {"predictor": {}},
        }
        assert says in " ".join(faults(whole | wrong, SCHEMA))


def test_the_home_in_the_image(pump: tuple[Store, str, str], tmp_path: Path, ask: Ask) -> None:
    store, stable, canary = pump
    to = tmp_path / "made"
    assert ask("export", "kserve", "pump", "--to", str(to))[0] == 0
    names = {path.name for path in to.rglob("*") if path.is_file()}
    assert not {name for name in names if "key" in name or name.endswith((".pem", ".tmp"))}
    assert {path.name for path in to.iterdir()} == {
        *("Dockerfile", "home", "inferenceservice.json", "ready.py", "start.py", "wheel")
    }
    assert KEY not in (to / "Dockerfile").read_text()
    pins = (to / "wheel" / "requirements.txt").read_text().splitlines()
    assert pins[0].startswith("genba==")
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\S+", pin) for pin in pins)
    assert any(pin.startswith("onnxruntime==") for pin in pins)
    with Store.open(to / "home", url=f"sqlite:///{to / 'home' / 'ledger.db'}") as made:
        assert {record.id for record in made.ledger.find("package")} == {stable, canary}
        assert made.ledger.verify().ok
        for package in (stable, canary):
            check_own(made, package)
        with pytest.raises(Problem, match="G605"):
            check_own(made, "f" * 64)
        assert len(trusted(made.path)) == 1


def test_what_cannot_be_exported(pump: tuple[Store, str, str], tmp_path: Path, ask: Ask) -> None:
    store, *_ = pump
    to = tmp_path / "made"
    argv = ("export", "kserve", "pump", "--to", str(to))
    assert ask(*argv, "--wheel", str(tmp_path / "x.tar"))[1]["problem"]["code"] == "G768"
    wheel = tmp_path / "genba-1-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    assert ask(*argv, "--wheel", str(wheel))[0] == 0
    assert (to / "wheel" / wheel.name).read_bytes() == b"wheel"
    assert ask(*argv)[1]["problem"]["code"] == "G111"
    assert ask(*argv, "--force")[0] == 0
    assert not (to / "wheel" / wheel.name).exists()
    place(store, "pump", "deploy", "f" * 64)
    with pytest.raises(Problem, match="G605"):
        export_home(store, "pump", tmp_path / "unsigned")


def steps(folder: Path, image: Path) -> tuple[dict[str, str], list[str]]:
    """Do what the Dockerfile says, but for installing; return its environment and entry point."""
    environment: dict[str, str] = {}
    entry: list[str] = []
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "ENV":
            environment |= dict(pair.split("=", 1) for pair in rest.split())
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                place_ = image / target.lstrip("/")
                place_.parent.mkdir(parents=True, exist_ok=True)
                copy(folder / source, place_ / source if target.endswith("/") else place_)
        elif word == "ENTRYPOINT":
            entry = json.loads(rest)
    return environment, entry


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        for inner in source.iterdir():
            copy(inner, target / inner.name)
    else:
        target.write_bytes(source.read_bytes())
        target.chmod(0o444)


@pytest.mark.slow
def test_a_server_starts_from_the_folder(
    pump: tuple[Store, str, str], tmp_path: Path, ask: Ask
) -> None:
    _, stable, canary = pump
    folder, image = tmp_path / "made", tmp_path / "image"
    assert ask("export", "kserve", "pump", "--to", str(folder))[0] == 0
    said, entry = steps(folder, image)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **{name: value.replace("/opt", f"{image}/opt", 1) for name, value in said.items()},
        "GENBA_HOME": str(tmp_path / "volume"),
        "GENBA_HOST": "127.0.0.1",
        "GENBA_PORT": str(port),
        "GENBA_SERVE_KEY": KEY,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, *(word.replace("/opt", f"{image}/opt", 1) for word in entry[1:])]
    ready = [sys.executable, str(image / "opt" / "genba" / "ready.py")]
    assert entry[0] == "python"
    assert subprocess.run(ready, env=environment, check=False).returncode == 1
    with subprocess.Popen(command, env=environment) as process:
        try:
            until(lambda: subprocess.run(ready, env=environment, check=False).returncode == 0)
            with Client(f"http://127.0.0.1:{port}", key=KEY) as client:
                windows = np.zeros((2, LAGS, SENSORS), dtype=np.float32)
                answers = {
                    client.infer("pump", {"window": windows}, entities=["R80711"] * 2).package
                    for _ in range(30)
                }
            with (
                Client(f"http://127.0.0.1:{port}", key="x" * 40) as stranger,
                pytest.raises(Problem, match="G7"),
            ):
                stranger.metadata("pump")
        finally:
            process.terminate()
    assert answers == {stable, canary}
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(KSERVE is None, reason="the kserve package is in an environment of its own")
def test_the_models_of_the_kserve_package_take_it(
    pump: tuple[Store, str, str], tmp_path: Path, ask: Ask
) -> None:
    """Its generated client reads the manifest into its types, and writes the same again."""
    to = tmp_path / "made"
    assert ask("export", "kserve", "pump", "--to", str(to))[0] == 0
    code = """
import json, re, sys
from types import SimpleNamespace
import kserve.models, kubernetes.client
from kserve.api_client import ApiClient

def known(name):  # kserve's generated code looks for all types there, and spells lists otherwise
    kind = getattr(kubernetes.client, name)
    for field, text in kind.openapi_types.items():
        text = re.sub(r"Dict\\[(.*)\\]", r"dict(\\1)", text)
        kind.openapi_types[field] = text.replace("List[", "list[")
    return kind
kserve.models.__getattr__ = known
body = open(sys.argv[1]).read()
client = ApiClient()
made = client.deserialize(SimpleNamespace(data=body), "V1beta1InferenceService")
container = made.spec.predictor.containers[0]
assert container.readiness_probe._exec.command, container
assert container.resources.requests["memory"]
back = client.sanitize_for_serialization(made)
assert back == json.loads(body), back
"""
    subprocess.run(
        [str(KSERVE), "-c", code, str(to / "inferenceservice.json")], check=True, timeout=100
    )
