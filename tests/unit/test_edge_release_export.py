"""What `genba export edge` writes: the folder whole or not at all, and every part of it."""

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import genba
from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.line import Line, Safety
from genba.core.problem import Problem
from genba.core.values import Manifest, Signature, Tensor, Verdict
from genba.edge.interface import Field, Span, encode_interface, read_interface
from genba.stages import edge_export
from genba.stages.edge_export import RELEASED, SIGNED, Exported, Order, export_edge
from genba.stages.edge_interface import derive
from genba.stages.edge_wheel import build_wheel, wheel_name
from genba.store.home import Store
from genba.store.oms import home_key
from genba.targets.registry import open_target
from genba.testing.serving import ENGINE, place, small_package
from genba.ui.cli.app import run_command
from tests.unit.edge_releases import FIELDS, PUMP, SAFETY, SETTINGS, SHEET, pump_home, released


def code(work: Callable[[], object]) -> str:
    with pytest.raises(Problem) as caught:
        work()
    assert caught.value.tries
    return caught.value.code


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return pump_home(tmp_path_factory.mktemp("factory") / "home")


@pytest.fixture(scope="module")
def made(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return released(store, tmp_path_factory.mktemp("release") / "pump")


def parsed(made: Exported, name: str) -> Any:
    return json.loads((made.release.folder / name).read_bytes())


def test_the_folder(made: Exported) -> None:
    folder = made.release.folder
    assert {p.name for p in folder.iterdir()} == {
        "bom.json", "card.md", "edge.json", "interface.json", "model.sig", "package", "runtime",
        "safety.json",
    }  # fmt: skip
    assert parsed(made, "safety.json") == SAFETY
    assert set(made.sizes) == {p.name for p in folder.iterdir()}
    assert made.sizes["package"] > 0
    stated = made.release.statement
    assert (stated.target, stated.standing, stated.deadline_ms) == ("this-machine", "measured", 1e3)
    assert stated.measures["energy_mj"].method == "modelled"
    assert len(stated.profile) == 64


def test_numbers_rise_and_nothing_is_left_behind(store: Store, tmp_path: Path) -> None:
    first = released(store, tmp_path / "a")
    second = released(store, tmp_path / "b")
    assert second.release.statement.release == first.release.statement.release + 1
    again = released(store, tmp_path / "a", force=True)
    assert again.release.statement.release == second.release.statement.release + 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    signed = store.ledger.events(line="pump", kinds=(SIGNED,))
    assert [e for e in signed if e.body["root"] == again.release.signed.root]


def test_two_exports_at_once_get_two_numbers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process released between looking and taking is seen by its key."""
    last = released(store, tmp_path / "a").release.statement.release
    real = store.ledger.events

    def blind(**how: Any) -> Any:
        found = real(**how)
        if how.get("kinds") == (RELEASED,):
            return [e for e in found if e.body["release"] < last]
        return found

    monkeypatch.setattr(store.ledger, "events", blind)
    assert released(store, tmp_path / "b").release.statement.release == last + 1


def test_places_that_are_taken(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    released(store, tmp_path / "empty")
    assert code(lambda: released(store, tmp_path / "empty")) == "G111"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert code(lambda: released(store, tmp_path / "mine", force=True)) == "G111"
    (tmp_path / "file").write_text("")
    assert code(lambda: released(store, tmp_path / "file")) == "G111"
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_what_cannot_be_exported(store: Store, tmp_path: Path) -> None:
    assert code(lambda: released(store, tmp_path / "x", target="toaster")) == "G612"
    assert code(lambda: released(store, tmp_path / "x", key=tmp_path / "none")) == "G679"
    with Store.open(tmp_path / "bare") as bare:
        assert code(lambda: released(bare, tmp_path / "x")) == "G502"
        place(bare, "pump", "deploy", small_package(bare, "pump"))
        assert code(lambda: released(bare, tmp_path / "x")) == "G610"
    assert not (tmp_path / "x").exists()


def test_texts_have_no_sensor_that_could_fail(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pump_home(home):
        pass
    monkeypatch.setattr(edge_export, "_TEXT", "table")
    assert run_command(["export", "edge", "pump", "--to", str(tmp_path / "x")]) == 0
    assert "no safety manifest" in capsys.readouterr().out
    assert not (tmp_path / "x" / "safety.json").exists()


def test_another_key(store: Store, tmp_path: Path) -> None:
    key = home_key(tmp_path)
    assert released(store, tmp_path / "x", key=key.path).key.fingerprint == key.fingerprint
    assert key.fingerprint != home_key(store.path).fingerprint


def test_a_crash_while_writing_leaves_no_release(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = released(store, tmp_path / "x").release.signed.root

    def full(*_: object) -> None:
        raise Problem("G303", "full", tries=["df"])

    monkeypatch.setattr(edge_export, "sign_folder", full)
    assert code(lambda: released(store, tmp_path / "x", force=True)) == "G303"
    assert code(lambda: released(store, tmp_path / "y")) == "G303"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    monkeypatch.undo()
    assert before


def test_measured_where_it_will_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that is not the line's own is measured there if it can be."""
    here = open_target("this-machine", store.path)
    monkeypatch.setattr(edge_export, "open_target", lambda *_: here)
    stated = released(store, tmp_path / "x", target="bench-pc").release.statement
    assert (stated.target, stated.standing) == ("bench-pc", "measured")
    assert stated.measures["latency_ms_p50"].value > 0


def test_the_interface_of_a_window(made: Exported) -> None:
    face = made.release.interface
    assert [f.name for f in face.fields] == list(FIELDS)
    assert face.fields[0] == Field(
        name="flow",
        role="input",
        required=True,
        limit=Span(min=0, max=9),
        seen=Span(min=0.5, max=8),
        usual=Span(min=1, max=7),
    )
    assert face.fields[3].role == "output"
    window, entity = face.inputs
    assert (window.fields, window.steps) == (FIELDS, 3)
    assert (entity.fields, entity.steps) == ((), 0)
    assert {p.name: p.fields for p in face.outputs}["expected"] == ("power",)
    assert (face.step_ms, face.stale_ms, face.tolerance_ms) == (600_000, 900_000, 300_000)
    assert (face.time, face.entity, face.entities) == ("at", "pump", ("R80711", "R80721"))


def manifest(signature: Signature, **settings: Any) -> Manifest:
    return Manifest(
        format=1, line="pump", task="t", model="m", run="r", dataset="d", engine=ENGINE,
        signature=signature, settings=settings, entities=("a",), files={},
        verdict=Verdict(passed=True),
    )  # fmt: skip


def test_the_interface_of_a_forecast() -> None:
    """What is known ahead of time stands in a window of its own, even of the same shape."""
    inputs = (
        Tensor(name="window", datatype="FP32", shape=(-1, 4, 2)),
        Tensor(name="future", datatype="FP32", shape=(-1, 4, 2)),
        Tensor(name="width", datatype="FP32", shape=(-1,), role="parameter", default=1.0),
    )
    outputs = (Tensor(name="low", datatype="FP32", shape=(-1, 4, 1), role="low"),)
    made = derive(
        replace(PUMP, data=replace(PUMP.data, known=("air|temp",), entity=None)),
        manifest(
            Signature(inputs=inputs, outputs=outputs),
            sensors=["flow", "power"], known=["air|temp", "day"], outputs=["power"],
        ),
        "p",
        SHEET,
    )  # fmt: skip
    assert [p.fields for p in made.inputs] == [("flow", "power"), ("air|temp", "day"), ()]
    assert [f.role for f in made.fields] == ["input", "output", "known", "known"]
    assert (made.outputs[0].fields, made.outputs[0].steps) == (("power",), 4)
    assert (made.step_ms, made.stale_ms, made.entities) == (None, None, ())
    assert read_interface(encode_interface(made)) == made


def test_the_interface_of_images() -> None:
    image = Tensor(name="image", datatype="UINT8", shape=(-1, 8, 8, 3), role="image")
    made = derive(PUMP, manifest(Signature(inputs=(image,), outputs=())), "p", {})
    assert made.fields == ()
    assert made.inputs[0].shape == (-1, 8, 8, 3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"{", "G670"), (b"[]", "G603"), (b'{"format": 9}', "G603"), (b'{"format": 1}', "G670")],
)
def test_an_interface_that_is_none(data: bytes, expected: str) -> None:
    assert code(lambda: read_interface(data)) == expected


def test_the_bill_of_materials(made: Exported) -> None:
    bom = parsed(made, "bom.json")
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    model = bom["metadata"]["component"]
    assert model["hashes"][0]["content"] == made.release.package.id
    metrics = {
        m["type"]: m for m in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    }
    assert metrics["r2"]["confidenceInterval"] == {"lowerBound": "0.8", "upperBound": "0.95"}
    assert "confidenceInterval" not in metrics["memory_mib (MiB)"]
    known = {p["name"]: p["value"] for p in model["modelCard"]["properties"]}
    assert known["genba:how:metric:r2"] == "measured"
    assert known["genba:how:runtime:energy_mj"] == "modelled"
    assert known["genba:how:data.source"] == "declared"
    environment = model["modelCard"]["considerations"]["environmentalConsiderations"]
    training, inference = environment["energyConsumptions"]
    assert training["activityEnergyCost"]["value"] > inference["activityEnergyCost"]["value"] > 0
    assert inference["activityEnergyCost"]["value"] == pytest.approx(2e-3 / 3.6e6)
    dataset, engine, runtime = bom["components"]
    assert dataset["licenses"] == [{"license": {"name": "CC0"}}]
    assert engine["name"] == "onnxruntime"
    wheel = (made.release.folder / "runtime" / wheel_name()).read_bytes()
    assert runtime["hashes"][0]["content"] == hashlib.sha256(wheel).hexdigest()
    refs = {c["bom-ref"] for c in (model, dataset, engine, runtime)}
    assert {d for one in bom["dependencies"] for d in (one["ref"], *one["dependsOn"])} <= refs


def test_the_card(made: Exported) -> None:
    text = (made.release.folder / "card.md").read_text()
    assert "| `r2` | 0.9 [0.8 to 0.95] | measured |" in text
    assert "| `air\\|temp` | input | not stated | any | any |" in text
    assert "| `flow` | input | not stated | 0 to 9 | 0.5 to 8 |" in text
    assert "| `power` | output | not stated | -1 to … | any |" in text
    assert "One reading every 600 s; older than 900 s it is none." in text
    assert made.key.fingerprint in text


def test_the_wheel_is_the_same_twice_and_says_what_is_in_it() -> None:
    data = build_wheel()
    assert data == build_wheel()
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        names = wheel.namelist()
        info = f"genba_edge-{genba.__version__}.dist-info"
        rows = [row.rsplit(",", 2) for row in wheel.read(f"{info}/RECORD").decode().splitlines()]
        for name, digest, size in rows[:-1]:
            content = wheel.read(name)
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            assert (digest, size) == (f"sha256={found.decode()}", str(len(content)))
        assert {name for name, *_ in rows} == set(names)
        metadata = wheel.read(f"{info}/METADATA").decode()
    assert "Requires-Dist: numpy" in metadata
    assert "Requires-Dist: pillow>=12; extra == 'vision'" in metadata
    layers = {name.split("/")[1] for name in names if name.startswith("genba/")}
    assert layers == {"__init__.py", "catalog.py", "py.typed", "core", "edge", "engines"}
    assert not [n for n in names if "__pycache__" in n or n.endswith(".pyc")]


def test_a_failing_cell_stops_the_export(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the newest run of the line accepts counts, not what the model's own run accepted."""
    asked: list[tuple[str, ...]] = []

    def assure(_: Store, package: str, line: Line, *__: Any, **___: Any) -> dict[str, Any]:
        asked.append(line.safety.accept)
        if "spike:flow" not in line.safety.accept:
            raise Problem("G596", "no", tries=["genba safety pump"])
        return SAFETY

    monkeypatch.setattr(edge_export, "assure", assure)
    order = Order(line="pump", folder=tmp_path / "x")
    before = len(store.ledger.events(kinds=(RELEASED,)))
    assert code(lambda: export_edge(store, order)) == "G596"
    assert list(tmp_path.iterdir()) == []
    assert len(store.ledger.events(kinds=(RELEASED,))) == before  # takes no number
    line = encode(replace(PUMP, safety=Safety(accept=("spike:flow",))))
    store.ledger.record("line", digest_json(line), line, line="pump")
    store.ledger.record("run", "run-later", {"line_digest": digest_json(line)}, line="pump")
    export_edge(store, order)
    assert asked == [(), ("spike:flow",)]


def test_as_it_is_typed(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge_export, "assure", lambda *_, **__: SAFETY)
    with pump_home(home):
        pass
    folder = str(tmp_path / "x")
    assert run_command(["export", "edge", "pump", "--to", folder, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["release"], body["key_made"], body["safety"]) == (1, True, True)
    assert body["next"][0].startswith("genba-edge trust ")
    key = str(home / "edge-key.pem")
    again = ["export", "edge", "pump", "--to", folder, "--force", "--days", "30", "--key", key]
    assert run_command(again) == 0
    out = capsys.readouterr().out
    assert "release 2 of pump" in out
    assert "onnxruntime, float32\n" in out
    assert "openssl ec" in out
    assert run_command(["export", "edge", "pump", "--to", folder]) == 2
    assert "G111" in capsys.readouterr().err


def test_settings_are_those_of_the_line(made: Exported) -> None:
    assert dict(made.release.package.manifest.settings)["sensors"] == SETTINGS["sensors"]
