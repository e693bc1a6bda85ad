"""`genba predict` over every kind of answer, here and from a server."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.core.task import Attribution, Explanation, Samples
from genba.core.values import Manifest, Signature, Tensor, Verdict
from genba.edge.images import decode, encode_png, inspect
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.stages.deploy import deploy
from genba.stages.explain import Case, Explained
from genba.store.home import Store
from genba.testing.serving import (
    ENGINE,
    image_package,
    image_signature,
    place,
    serve_here,
    small_package,
    until,
)
from genba.ui.cli import predict_input, predict_report
from genba.ui.cli.answer import make_console
from genba.ui.cli.heatmap import overlay, place_of
from genba.ui.cli.predict_input import Part, parts
from genba.ui.cli.predict_report import Reading

Ask = Callable[..., tuple[int, dict[str, Any]]]
LIMITS = Limits(poll_s=0.01, capture_s=0.05, sweep_s=0.02)
IMAGES = Line(name="parts", task="vision.anomaly", data=Data(source="files:parts"))
PUMP = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(source="files:pump.csv", time="time", entity="pump", output="d"),
)


def add_line(store: Store, line: Line) -> None:
    body = encode(line)
    store.ledger.record("line", digest_json(body), body, line=line.name)


def part_image(level: int, width: int = 40, height: int = 30) -> bytes:
    pixels = np.full((height, width, 3), level, np.uint8)
    pixels[: height // 2, :, 0] = 255
    return encode_png(pixels)


@pytest.fixture
def parts_line(home: Path) -> tuple[Store, str]:
    store = Store.open(home)
    add_line(store, IMAGES)
    package = image_package(store, "parts", bar=0.5)
    deploy(store, "parts", "deploy", package, reason="first", by="me")
    return store, package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place_ = tmp_path / "images" / "more"
    place_.mkdir(parents=True)
    for name, level in (("dark.png", 10), ("light.png", 250)):
        (place_ / name).write_bytes(part_image(level))
    bitmap = io.BytesIO()
    Image.open(io.BytesIO(part_image(99))).save(bitmap, "BMP")
    (place_.parent / "other.bmp").write_bytes(bitmap.getvalue())
    (place_.parent / "broken.png").write_bytes(part_image(1)[:60])
    (place_.parent / "notes.txt").write_text("no image")
    return place_.parent


def test_one_image_here(
    parts_line: tuple[Store, str], folder: Path, tmp_path: Path, ask: Ask
) -> None:
    file, target = folder / "more" / "light.png", tmp_path / "out" / "map.png"
    code, told = ask(
        "predict", "parts", "--input", str(file), "--local", "stable", "--save-map", str(target)
    )
    assert code == 0
    (row,) = told["predictions"]
    assert row["file"] == str(file)
    assert row["alarm"] is True
    assert row["class_name"] == "unsure"
    assert row["entity"] is None
    assert {"map", "mask", "look"}.isdisjoint(row)
    assert told["maps"] == [str(target)]
    assert inspect(target.read_bytes()).width == 40
    assert told["next"] == ["genba up"]


def test_a_folder_of_images_with_one_that_is_broken(
    parts_line: tuple[Store, str], folder: Path, tmp_path: Path, ask: Ask, show: Callable[..., str]
) -> None:
    target = tmp_path / "maps"
    code, told = ask(
        "predict", "parts", "--input", str(folder), "--local", "stable", "--save-map", str(target)
    )
    assert code == 0
    names = [Path(row["file"]).name for row in told["predictions"]]
    assert sorted(names) == ["dark.png", "light.png", "other.bmp"]
    assert list(told["rejected"].values()) == [1]
    assert sorted(p.name for p in target.iterdir()) == ["dark.png", "light.png", "other.png"]
    text = show("predict", "parts", "--input", str(folder), "--local", "stable")
    assert "3 predictions, 1 alarm" in text
    assert "unsure" in text
    assert "red" in text
    pattern = str(folder / "*" / "d*.png")
    assert ask("predict", "parts", "--input", pattern, "--local", "stable")[1]["rows"] == 1


def test_what_cannot_be_asked(
    parts_line: tuple[Store, str], folder: Path, tmp_path: Path, ask: Ask
) -> None:
    (tmp_path / "empty").mkdir()
    broken = folder / "broken.png"
    for path, code in (
        (tmp_path / "empty", "G722"),
        (broken, "G231"),
        (tmp_path / "x.png", "G722"),
    ):
        told = ask("predict", "parts", "--input", str(path), "--local", "stable")[1]
        assert told["problem"]["code"] == code


def test_images_and_feedback_through_a_server(
    parts_line: tuple[Store, str], folder: Path, home: Path, ask: Ask
) -> None:
    store, package = parts_line
    answers: list[dict[str, Any]] = []

    def script(client: Client) -> None:
        argv = ("predict", "parts", "--input", str(folder), "--url", client.url)
        answers.append(ask(*argv)[1])
        code, told = ask("tune", "parts", "bar", "0.9", "--reason", "too many")
        assert code == 0
        until(lambda: client.metadata("parts")["parameters"]["parameters"]["bar"] == 0.9)
        answers.append(ask(*argv)[1])

    serve_here(home, script, limits=LIMITS)
    first, second = ({Path(r["file"]).name: r for r in a["predictions"]} for a in answers)
    assert first.keys() == {"dark.png", "light.png", "other.bmp"}
    for name, row in first.items():
        assert row["score"] * 0.5 == pytest.approx(second[name]["score"] * 0.9, rel=1e-5)
        assert row["package"] == package
    assert answers[0]["next"][0].startswith("genba trace server-")
    assert answers[0]["next"][1].startswith("genba feedback parts --prediction server-")
    assert store.ledger.events(kinds=("tune",))[0].body["by"]


def rows_of_pump(tmp_path: Path, count: int = 30) -> Path:
    path = tmp_path / "pump.csv"
    chance = np.random.default_rng(1)
    lines = ["time,pump,a,b,c,d"]
    for index in range(count):
        values = ",".join(f"{v:.3f}" for v in chance.normal(size=4) * 3)
        lines.append(f"2026-01-01T{index // 2:02d}:{30 * (index % 2):02d}:00Z,R80711,{values}")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def pump(home: Path) -> Store:
    store = Store.open(home)
    add_line(store, PUMP)
    settings = {"sensors": ["a", "b", "c", "d"], "outputs": ["d"], "lags": 3, "context": 2}
    settings |= {"step_ms": 1_800_000, "has_clock": True}
    place(store, "pump", "deploy", small_package(store, "pump", settings=settings))
    return store


def test_rows_here_and_to_a_file(
    pump: Store, tmp_path: Path, ask: Ask, show: Callable[..., str]
) -> None:
    path, to = rows_of_pump(tmp_path), tmp_path / "out.csv"
    argv = ("predict", "pump", "--input", str(path), "--local", "stable")
    code, told = ask(*argv, "--to", str(to))
    assert (code, told["rows"]) == (0, 30)
    with to.open() as file:
        written = list(csv.DictReader(file))
    assert [float(r["score"]) for r in written] == [r["score"] for r in told["predictions"]]
    assert told["predictions"][1]["time_ms"] - told["predictions"][0]["time_ms"] == 1_800_000
    assert told["predictions"][0]["entity"] == "R80711"
    text = show(*argv)
    assert "30 predictions" in text
    assert "the strongest alarms" in text
    code, told = ask(*argv, "--save-map", "x.png")
    assert (code, told["problem"]["code"]) == (2, "G110")


def test_slices_of_a_history_give_the_same_samples(
    pump: Store, tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rows_of_pump(tmp_path)
    argv = ("predict", "pump", "--input", str(path), "--local", "stable")
    whole = ask(*argv)[1]["predictions"]
    monkeypatch.setattr(predict_input, "_SLICE", 7)
    monkeypatch.setattr(predict_input, "_ROWS", 3)
    assert ask(*argv)[1]["predictions"] == whole


FORECAST = Manifest(
    format=1,
    line="load",
    task="sensor.anomaly",
    model="m",
    run="r",
    dataset="d",
    engine=ENGINE,
    signature=Signature(
        inputs=(Tensor(name="window", datatype="FP32", shape=(-1, 2, 2)),),
        outputs=tuple(
            Tensor(name=role, datatype="FP32", shape=(-1, 9, 1), role=role)
            for role in ("expected", "low", "high")
        ),
    ),
    settings={
        "sensors": ["load", "warmth"],
        "outputs": ["load"],
        "context": 1,
        "ahead": 2,
        "step_ms": 3_600_000,
    },
    entities=(),
    files={},
    verdict=Verdict(passed=True),
)
LOAD = Line(name="load", task="sensor.anomaly", data=Data(source="files:x", time="time"))


class Windows:
    """Makes a sample of each row: the row's number and how many rows follow."""

    def samples(self, columns: Any, settings: Any) -> Samples:
        row = columns["row"]
        after = np.minimum(np.arange(len(row))[::-1], settings["ahead"])
        return Samples(
            tensors={"window": np.stack([row, after], axis=1).astype(np.float32)},
            entity=columns["entity"],
            time=columns["time"],
            row=row,
            label=columns["label"],
            truth=np.zeros((len(row), 1)),
        )


def test_a_forecast_is_made_from_the_newest_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_input, "resolve", lambda *_: Windows)
    monkeypatch.setattr(predict_input, "_SLICE", 2)
    path = tmp_path / "load.csv"
    rows = [(1.0, 5.0), (2.0, 6.0), (3.0, 7.0), ("", 8.0), ("", 9.0), ("", 9.5)]
    lines = [f"2026-01-01T{i:02d}:00:00Z,{a},{b}" for i, (a, b) in enumerate(rows)]
    path.write_text("\n".join(["time,load,warmth", *lines]))
    (newest,) = parts(LOAD, FORECAST, path, Counter(), every=False)
    assert newest.rows.tolist() == [2]
    assert newest.tensors["window"].tolist() == [[2, 2]]  # the known future came with it
    every = list(parts(LOAD, FORECAST, path, Counter(), every=True))
    assert np.concatenate([p.rows for p in every]).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_forecast_is_read_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    reading = Reading(FORECAST, ())
    row = {
        "row": 4,
        "entity": "A",
        "time_ms": 1_760_000_000_000,
        "expected": [[float(n)] for n in range(9)],
        "low": [float(n) - 1 for n in range(9)],
        "high": [float(n) + 1 if n else None for n in range(9)],
        "prediction": "server-1-4",
        "package": "p",
        "role": "stable",
    }
    assert reading.ahead
    assert reading.columns() == []
    for block in predict_report.blocks("load", [row], reading, []):
        make_console().print(block)
    text = capsys.readouterr().out
    assert "2025-10-09 09:53:20 UTC" in text
    assert "1 [0 to 2]" in text
    assert "8 [7 to 9]" in text
    assert predict_report._about({**row, "time_ms": 31}, "time") == "31"
    clockless = predict_report._forecast({**row, "time_ms": None, "expected": [None, 2.0]}, reading)
    for block in clockless:
        make_console().print(block)
    assert "step 2" in capsys.readouterr().out


def test_every_role_has_words() -> None:
    outputs = (
        Tensor(name="life", datatype="FP32", shape=(-1,), role="expected", unit="cycles"),
        Tensor(name="l", datatype="FP32", shape=(-1,), role="low"),
        Tensor(name="h", datatype="FP32", shape=(-1,), role="high"),
        *image_signature().outputs,
    )
    manifest = replace(FORECAST, signature=Signature(inputs=(), outputs=outputs))
    reading = Reading(manifest, ("red",))
    row = {"life": 12.5, "l": 10.0, "h": None, "class": 0, "probability": [0.25, None, 0.5]}
    assert reading.cell(row, "expected") == "12.5 cycles"
    assert reading.cell({**row, "h": 14.0}, "expected") == "12.5 cycles [10 to 14]"
    assert reading.cell(row, "probability") == "0.5"
    assert [reading.cell({**row, "class": n}, "class") for n in (-1, 0, 7)] == [
        "unsure",
        "red",
        "7",
    ]
    assert reading.cell(row, "score") == "-"
    assert reading.cell({**row, "alarm": True}, "alarm") == "ALARM"
    rows = [{"entity": e, "alarm": False, "n": n} for n, e in enumerate("aab")]
    assert [r["n"] for r in predict_report.strongest(rows, reading)] == [1, 2, 0]


def test_the_overlay_keeps_proportions_and_marks_what_is_hot() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 3.0
    made = decode(overlay(part_image(100, 60, 30), heat), 64)
    assert Image.open(io.BytesIO(overlay(part_image(100, 60, 30), heat))).size == (60, 30)
    assert made[60, 60].tolist() == [100, 100, 100]
    assert made[2, 2, 0] > 200
    assert made[2, 2, 1] < 60
    with pytest.raises(Problem):
        overlay(b"no image", heat)


def test_maps_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    taken: set[Path] = set()
    found = [place_of(tmp_path / "m", n, taken, several=True) for n in ("a/x.jpg", "b/x.jpg")]
    assert [p.name for p in found] == ["x.png", "x-2.png"]
    part = Part(tensors={})
    assert len(part) == 0


def test_the_strongest_answer_is_explained(
    parts_line: tuple[Store, str], folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def explain(store: Store, package: str, tensors: Any) -> Explained:
        asked.append({"package": package, **tensors})
        because = Attribution(name="edge", share=1.0, value=3.0, usual=1.0)
        return Explained(
            package=package,
            explanation=Explanation(attributions=(because,)),
            cases=(Case(row=7, distance=0.5, label=1.0, called="scratch", dataset="d"),),
            novelty=0.75,
        )

    monkeypatch.setattr("genba.ui.cli.predict.explain", explain)
    argv = ("predict", "parts", "--input", str(folder), "--local", "stable", "--explain")
    code, told = ask(*argv)
    assert code == 0
    assert told["explanation"]["cases"][0]["called"] == "scratch"
    (one,) = asked
    assert one["package"] == parts_line[1]
    assert one["image"].shape == (1, 16, 16, 3)
    assert one["image"][0, -1, 0].tolist() == [250, 250, 250]  # of the image that alarms
    assert one["bar"].tolist() == [0.5]
