"""`genba-edge` as its user types it, and `genba export edge`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.catalog import EDGE_COMMANDS, EDGE_EXTRAS, EDGE_IMPORTS
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.edge.cli import app
from genba.edge.cli.answer import Said
from genba.edge.cli.app import run_command
from genba.edge.cli.predict import table
from genba.edge.cli.rows import read_rows
from genba.edge.interface import Interface, Port
from genba.edge.memory import Memory
from genba.edge.package import LoadedPackage
from genba.edge.release import open_release
from genba.edge.trust import Trust, add_key
from genba.stages.edge_export import Exported
from tests.unit.edge_releases import add_image_package, pump_home, released
from tests.unit.image_files import png

Ask = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("made")
    return released(pump_home(root / "home"), root / "release")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENBA_EDGE", str(tmp_path / "device"))
    return tmp_path / "device"


@pytest.fixture
def ask(device: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def type_it(*argv: object) -> tuple[int, Any, str]:
        code = run_command([str(word) for word in argv])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in argv else out, err

    return type_it


def test_from_nothing_to_an_answer(made: Exported, ask: Ask, tmp_path: Path) -> None:
    folder = made.release.folder
    public = tmp_path / "key.pem"
    public.write_bytes(made.key.public_pem)
    code, out, err = ask("verify", folder)
    assert (code, out) == (3, "")
    assert err.startswith("G672")
    assert "genba-edge trust" in err
    assert ask("trust")[1].startswith("No key is trusted here yet.")
    assert ask("trust", public, "--fingerprint", made.key.fingerprint[:16])[0] == 0
    assert made.key.fingerprint in ask("trust")[1]
    code, out, _ = ask("verify", folder)
    assert code == 0
    assert "not yet here" in out
    code, out, _ = ask("self-test", folder)
    assert (code, "deadline 1000 ms" in out) == (0, True)
    code, body, _ = ask("predict", folder, "--sample", "--json")
    assert (code, body["command"], len(body["outputs"]["alarm"])) == (0, "predict", 4)
    code, out, _ = ask("predict", folder, "--sample")
    assert out.splitlines()[0].split() == ["score", "alarm", "expected"]
    code, body, _ = ask("verify", folder, "--json")
    assert body["passed_here"]["latency_ms_p99"] >= body["passed_here"]["latency_ms_p50"]
    code, body, err = ask("verify", folder, "--line", "fan", "--json")
    assert (code, body["problem"]["code"], err) == (3, "G676", "")
    assert ask("revoke", made.key.fingerprint[:16])[0] == 0
    assert ask("predict", folder, "--sample")[2].startswith("G673")
    assert "revoked" in ask("trust")[1]


@pytest.fixture
def trusted(made: Exported, ask: Ask, tmp_path: Path) -> Path:
    public = tmp_path / "key.pem"
    public.write_bytes(made.key.public_pem)
    ask("trust", public)
    return made.release.folder


def test_predict_from_a_file(trusted: Path, ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    window = np.zeros((25, 3, 4)).tolist()
    path.write_text(json.dumps({"window": window, "entity": ["R80711"] * 24 + ["new"]}))
    code, out, _ = ask("predict", trusted, "--input", path)
    assert code == 0
    assert "… 5 more: --json" in out.splitlines()
    for content, why in {
        "{": "It is not JSON",
        "[]": "It must hold an object",
        json.dumps({"window": window}): "entity is missing",
        json.dumps({"window": window, "entity": [0] * 25, "more": 1}): "names 'more'",
        json.dumps({"window": [[1]], "entity": [0]}): "window has the shape [1, 1]",
        json.dumps({"window": [["x"]], "entity": [0]}): "window: ",
        json.dumps({"window": window, "entity": [0.5] * 25}): "entity has the shape",
    }.items():
        path.write_text(content)
        code, _, err = ask("predict", trusted, "--input", path)
        assert code == 3
        assert why in err, err
    assert "cannot be read" in ask("predict", trusted, "--input", tmp_path / "none.json")[2]
    assert "takes no images" in ask("predict", trusted, "--image", path)[2]


def test_predict_from_rows(trusted: Path, ask: Ask, tmp_path: Path) -> None:
    """Windows are those of the rows before; what a check refuses is missing."""
    path = tmp_path / "rows.csv"
    head = "at,pump,flow,air|temp,plc.speed:mean,power\n"
    rows = [f"2026-11-01T00:{m:02d}:00,R80711,1,2,3,{m}\n" for m in (0, 10, 20)]
    path.write_text(head + "".join(rows), encoding="utf-8-sig")
    code, body, _ = ask("predict", trusted, "--rows", path, "--json")
    assert (code, len(body["samples"]), len(body["outputs"]["score"])) == (0, 3, 3)
    window = np.array([[[1, 2, 3, 0], [1, 2, 3, 10], [1, 2, 3, 20]]], dtype=np.float32)
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"window": window.tolist(), "entity": ["R80711"]}))
    same = ask("predict", trusted, "--input", given, "--json")[1]
    assert body["outputs"]["score"][2] == pytest.approx(same["outputs"]["score"][0])
    path.write_text(head + "2026-11-01T00:20:00+00:00,R80711,99,2,3,?\n")
    refused = ask("predict", trusted, "--rows", path, "--json")[1]["outputs"]["score"]
    window = np.full((1, 3, 4), np.nan)
    window[0, 2, 1:3] = 2, 3
    tensors, names = read_rows(path, *opened_parts(trusted))
    assert names == ["2026-11-01T00:20:00+00:00 R80711"]
    assert np.array_equal(tensors["window"], window, equal_nan=True)
    assert len(refused) == 1
    out = ask("predict", trusted, "--rows", path)[1]
    assert "R80711" in out
    assert "without the safety envelope" in out
    for text, why in {
        "": "no column",
        head: "no rows",
        head.replace("flow", "flew") + rows[0]: "no column flow; flew?",
        head + "yesterday,R80711,1,2,3,4\n": "is no time",
    }.items():
        path.write_text(text)
        code, _, err = ask("predict", trusted, "--rows", path)
        assert (code, why in err) == (3, True), err
    path.write_bytes(b"\xff\xfe")
    assert "UTF-8" in ask("predict", trusted, "--rows", path)[2]
    assert "cannot be read" in ask("predict", trusted, "--rows", tmp_path / "none.csv")[2]


def opened_parts(folder: Path) -> tuple[LoadedPackage, Interface]:
    state = Path(os.environ["GENBA_EDGE"])
    release = open_release(folder, Trust.at(state), Memory.at(state), 0)
    return release.package, release.interface


def test_rows_without_a_clock_and_none_at_all(made: Exported, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("flow,air|temp,plc.speed:mean,power\n1,2,3,4\n5,6,7,8\n")
    release = made.release
    counted = replace(release.interface, step_ms=None, stale_ms=None, tolerance_ms=None)
    tensors, names = read_rows(path, release.package, counted)
    assert names == ["1", "2"]
    assert tensors["window"].shape == (2, 3, 4)
    with pytest.raises(Problem, match="G602"):
        read_rows(path, release.package, replace(counted, fields=()))


def test_usage(ask: Ask, made: Exported) -> None:
    assert "self-test" in ask()[1]
    assert ask("--help")[1] == ask()[1]
    assert ask("--version")[1].startswith("genba-edge ")
    assert "did you mean verify?" in ask("verfy")[2]
    assert ask("frobnicate")[0] == 2
    assert ask("verify")[0] == 2
    assert ask("predict", made.release.folder)[2].startswith("G110")
    assert ask("trust", "nowhere.pem")[2].startswith("G672")
    with pytest.raises(SystemExit) as left:
        ask("verify", "--help")
    assert left.value.code == 0


def test_every_command_has_its_help() -> None:
    for name in EDGE_COMMANDS:
        assert resolve("edge-command", name).help


class Failing:
    help = "Fail."
    error: BaseException = RuntimeError("no")

    @staticmethod
    def arguments(parser: Any) -> None: ...

    @classmethod
    def run(cls, given: Any) -> Said:
        raise cls.error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RuntimeError("no"), 3, "G999"),
        (ModuleNotFoundError("x", name="PIL.Image"), 3, "[vision]"),
        (ModuleNotFoundError("x", name="strange"), 3, "pip install strange"),
        (ModuleNotFoundError("x", name="genba.nothing"), 3, "G999"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_goes_wrong_is_a_sentence(
    error: BaseException, code: int, says: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "resolve", lambda *_: Failing)
    monkeypatch.setattr(Failing, "error", error)
    found, _, err = ask("verify")
    assert found == code
    assert says in err
    assert "Traceback" not in err


def test_a_library_that_is_not_on_the_device(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Problem of the resolver names the factory's extra; on a device it is the wheel's."""
    problem = Problem("G901", "no", tries=['pip install "genba[openvino]"'])
    problem.__cause__ = ModuleNotFoundError("x", name="openvino")
    monkeypatch.setattr(app, "resolve", lambda *_: Failing)
    monkeypatch.setattr(Failing, "error", problem)
    assert ".whl[openvino]" in ask("verify")[2]


def test_a_reader_that_has_seen_enough(made: Exported, device: Path) -> None:
    command = [sys.executable, "-m", "genba.edge.cli", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 0


def test_the_extras_are_those_of_the_project() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for libraries in EDGE_EXTRAS.values():
        for library in libraries:
            assert f'"{library}' in text, library
    assert set(EDGE_IMPORTS.values()) == set(EDGE_EXTRAS)


def test_images(tmp_path: Path, ask: Ask, home: Path) -> None:
    exported = released(pump_home(home, add_image_package), tmp_path / "parts")
    assert exported.release.interface.classes == ("red", "green", "blue")
    text = (tmp_path / "parts" / "card.md").read_text()
    assert "| `image` | UINT8 | `[-1, 16, 16, 3]` | image |" in text
    add_key(Path(os.environ["GENBA_EDGE"]), exported.key.public_pem)
    (tmp_path / "part.png").write_bytes(png(1))
    code, out, err = ask("predict", tmp_path / "parts", "--image", tmp_path / "part.png")
    assert code == 0, err
    assert "class" in out.splitlines()[0]
    code, _, err = ask("predict", tmp_path / "parts", "--image", tmp_path / "none.png")
    assert (code, "cannot be read" in err) == (3, True)
    (tmp_path / "part.png").write_bytes(b"no image")
    assert ask("predict", tmp_path / "parts", "--image", tmp_path / "part.png")[0] == 2


def test_words_for_classes() -> None:
    classes = ("red", "green")
    port = Port(name="class", datatype="INT64", shape=(-1,), role="class")
    face = Interface(line="a", package="b", inputs=(), outputs=(port,), classes=classes)
    assert table(face, {"class": np.array([1, -1])}) == ["class", "green", "abstains"]
    text = Port(name="text", datatype="BYTES", shape=(-1,), role="text")
    face = Interface(line="a", package="b", inputs=(), outputs=(text,))
    assert table(face, {"text": np.array([b"yes", "no"], dtype=object)}) == ["text", "yes", "no"]
