"""What people mark in images: masks and regions come in, are kept, and become lessons."""

import base64
import itertools
import json
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.core.task import Lesson
from genba.data.feedback import FeedbackReport, effective_labels, read_file, receive
from genba.data.feedback import regions as drawing
from genba.data.feedback.labels import Meaning
from genba.data.feedback.regions import GRID, agreed, as_mark, draw, parse_region, read_mask
from genba.edge.images import decode_mask, encode_png
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.testing.crash import Model, crash_everywhere
from tests.unit.feedback_store import NOW, T0, last_event, outcomes, prepare

CLASSES = ("good", "scratch", "stain")
WIDTH, HEIGHT = 200, 100


def word(value: str) -> float:
    if value in CLASSES:
        return float(CLASSES.index(value))
    raise Problem("G801", f"{value!r} is no class.", tries=["good"])


def judge(outputs: Mapping[str, Any], label: float, settings: Mapping[str, Any]) -> str:
    return "confirmed" if outputs["class"] == label == settings.get("answers") else "wrong"


MEANING = Meaning(label=word, judge=judge, marks=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        prepare(opened)
        inspected(opened)
        yield opened


def inspected(store: Store, count: int = 3) -> None:
    """Pictures without a moment, each answered with the class 1."""
    manifest = {
        "settings": {"answers": 1},
        "signature": {
            "inputs": [{"name": "image", "role": "image", "shape": [-1, 8, 8, 3]}],
            "outputs": [{"name": "class", "role": "class", "shape": [-1]}],
        },
    }
    store.ledger.record("package", "v", manifest, line="farm")
    picture = encode_png(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    rows = CapturedRows(
        package="v",
        n=np.arange(count),
        received_ms=np.full(count, T0),
        role=["stable"] * count,
        entity=[None] * count,
        time=[None] * count,
        latency_us=np.ones(count, dtype=np.int64),
        status=["ok"] * count,
        features={"image": np.array([picture] * count, dtype=object)},
        outputs={"class": np.ones(count, dtype=np.int64)},
    )
    CaptureWriter(store, "farm", "s1").write(
        Interval(from_ms=T0, to_ms=NOW, packages={"v": {"n": count}}, rows=(rows,))
    )


def say(store: Store, *rows: dict[str, Any], now_ms: int = NOW) -> FeedbackReport:
    return receive(store, "farm", rows, source="api", meaning=MEANING, now_ms=now_ms)


def about(n: int, value: str = "scratch", author: str = "ada", **more: Any) -> dict[str, Any]:
    return {"prediction": f"s1-{n}", "value": value, "author": author, **more}


def lessons(store: Store) -> dict[str | None, Lesson]:
    return {one.prediction: one for one in effective_labels(store, "farm", label=word)}


def square(left: int, top: int, side: int, of: int = 64) -> bytes:
    mask = np.zeros((of, of), np.uint8)
    mask[top : top + side, left : left + side] = 200
    return encode_png(mask)


def share(mask: bytes | None) -> float:
    assert mask is not None
    return float(decode_mask(mask, GRID).mean())


@pytest.mark.parametrize("form", ["bytes", "base64", "data address", "path"])
def test_a_mask_comes_in_any_form_and_becomes_part_of_the_lesson(
    store: Store, tmp_path: Path, form: str
) -> None:
    data = square(0, 0, 32)
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    text = base64.b64encode(data).decode()
    mask = {
        "bytes": data,
        "base64": text,
        "path": path,
        "data address": f"data:image/png;base64,{text}",
    }
    assert outcomes(say(store, about(0, mask=mask[form]))) == {"accepted": 1}
    (row,) = store.feedback.all("farm")
    assert row.mask is not None
    lesson = lessons(store)["s1-0"]
    assert lesson.mask == store.blobs.read(row.mask)
    assert share(lesson.mask) == 0.25
    assert (lesson.label, lesson.value, lesson.time_ms) == (1.0, "scratch", None)


def test_a_region_is_drawn_in_fractions_or_in_pixels_of_its_image(store: Store) -> None:
    say(store, about(0, region="0.5,0,0.5,0.5"), about(1, region=f"{WIDTH // 2},0,100,50"))
    said = lessons(store)
    assert said["s1-0"].mask == said["s1-1"].mask
    assert share(said["s1-0"].mask) == 0.25


def test_pixels_of_an_image_that_is_not_known_are_refused(store: Store) -> None:
    report = say(store, {**about(0, region="10,10,20,20"), "prediction": "s9-1"}, about(1))
    assert outcomes(report) == {"accepted": 1, "rejected": 1}
    assert report.rejected[0].code == "G834"
    assert last_event(store)["rejected"] == 1


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"mask": b"no image"}, "G830"),
        ({"mask": "§§§"}, "G830"),
        ({"mask": Path("/nowhere/mask.png")}, "G830"),
        ({"mask": encode_png(np.zeros((16, 16), np.uint8))}, "G832"),
        ({"region": "0.1,0.2,0.3"}, "G831"),
        ({"region": "0.1,0.2,0.3,0"}, "G831"),
        ({"region": "0.1,0.2 0.3,0.4"}, "G831"),
        ({"region": "0.1,0.2 0.3,0.4 0.5"}, "G831"),
        ({"region": "-0.1,0.2,0.3,0.4"}, "G831"),
        ({"region": "here"}, "G831"),
        ({"region": " ; "}, "G831"),
        ({"region": "900,900,20,20"}, "G832"),
        ({"region": "0,0,1,1", "mask": square(0, 0, 8)}, "G803"),
        ({"region": "0,0,1,1", "value": ""}, "G803"),
        ({"region": ["0,0,1,1"]}, "G804"),
        ({"region": "0,0,1,1;" * 10_000}, "G804"),
        ({"value": "x" * 257}, "G804"),
        ({"value": "x" * 257, "kind": "correction"}, "G801"),
    ],
)
def test_marks_that_are_none_are_rejected_with_a_reason(
    store: Store, row: dict[str, Any], code: str
) -> None:
    (bad,) = say(store, {**about(0), **row}).rejected
    assert bad.code == code
    assert bad.tries
    assert store.feedback.all("farm") == []


def test_a_mask_that_is_too_large_is_not_opened(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "MOST_BYTES", 10)
    (bad,) = say(store, about(0, mask=square(0, 0, 8))).rejected
    assert bad.code == "G830"
    assert "10 are taken" in bad.reason


def test_a_line_without_images_takes_no_marks(store: Store) -> None:
    (bad,) = receive(store, "farm", [{**about(0, "ok", region="0,0,1,1")}], source="api").rejected
    assert bad.code == "G833"


def test_a_mask_redrawn_is_news_and_repeated_is_none(store: Store) -> None:
    first, second = square(0, 0, 32), square(32, 32, 32)
    assert outcomes(say(store, about(0, mask=first))) == {"accepted": 1}
    assert outcomes(say(store, about(0, mask=first), about(0))) == {"duplicate": 2}
    assert outcomes(say(store, about(0, mask=second), now_ms=NOW + 1)) == {"accepted": 1}
    assert decode_mask(lessons(store)["s1-0"].mask or b"", 4)[3, 3]
    assert outcomes(say(store, about(0), now_ms=NOW + 2)) == {"duplicate": 1}
    assert lessons(store)["s1-0"].mask is not None
    say(store, about(0, "good"), now_ms=NOW + 3)
    assert lessons(store)["s1-0"].mask is None


def test_what_at_least_half_marked_counts(store: Store) -> None:
    left, all_, right = "0,0,0.5,1", "0,0,1,1", "0.5,0,0.5,1"
    say(store, about(0, region=left), about(0, author="bob", region=all_))
    assert share(lessons(store)["s1-0"].mask) == 1.0
    say(store, about(0, author="eve", region=left), now_ms=NOW + 1)
    assert share(lessons(store)["s1-0"].mask) == 0.5
    say(store, about(0, "stain", author="dan", region=right), now_ms=NOW + 2)
    assert share(lessons(store)["s1-0"].mask) == 0.5


def test_masks_nobody_agrees_on_are_no_mask() -> None:
    thirds = [
        as_mark(np.arange(GRID)[None, :] // 342 == np.full((GRID, 1), k), "") for k in range(3)
    ]
    assert agreed(thirds) is None
    assert agreed([]) is None
    assert agreed(thirds[:1]) == thirds[0]


def test_the_events_say_how_answers_fared(store: Store) -> None:
    say(store, about(0, "scratch"), about(1, "stain"), about(2, "good"))
    body = last_event(store)
    assert (body["labels"], body["confirmed"], body["wrong"], body["missed"]) == (3, 1, 2, 0)


def test_files_name_masks_beside_them(store: Store, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(square(0, 0, 32))
    csv = tmp_path / "said.csv"
    csv.write_text(
        'prediction,value,mask,region\ns1-0,scratch,masks/a.png,\ns1-1,stain,,"0,0,1,0.5"\n'
        "s1-2,stain,masks/none.png,\n",
        encoding="utf-8",
    )
    report = receive(store, "farm", read_file(csv), source="csv", meaning=MEANING, now_ms=NOW)
    assert outcomes(report) == {"accepted": 2, "rejected": 1}
    assert report.rejected[0].where == f"{csv}:4"
    assert [share(one.mask) for one in lessons(store).values()] == [0.25, 0.5]


def test_json_lines_go_in_as_well(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    rows = [about(0, region="0,0,1,0.5"), {**about(1), "entity": None}]
    path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert outcomes(
        receive(store, "farm", read_file(path), source="csv", meaning=MEANING, now_ms=NOW)
    ) == {"accepted": 2}


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "\xff"])
def test_json_lines_that_are_none_say_where(tmp_path: Path, text: str) -> None:
    path = tmp_path / "said.ndjson"
    path.write_bytes(f'{{"prediction": "s1-1"}}\n{text}'.encode("latin-1"))
    rows = read_file(path)
    next(rows)
    with pytest.raises(Problem, match="G805") as caught:
        next(rows)
    assert caught.value.where == f"{path}:2"
    for gone in (tmp_path / "gone.jsonl", tmp_path / "folder.jsonl"):
        if gone.stem == "folder":
            gone.mkdir(exist_ok=True)
        with pytest.raises(Problem, match="G805"):
            list(read_file(gone))


def test_a_box_may_reach_beyond_the_image_and_a_thin_one_is_seen() -> None:
    beyond = parse_region("0.9,0.9,0.5,0.5", "")
    assert not beyond.pixels
    assert share(draw(beyond, None, "")) == pytest.approx(0.01, rel=0.03)
    thin = parse_region("5,5,0.5,90;10,10 90,10 90,90", "")
    assert share(draw(parse_region("5,5,0.5,50", ""), (WIDTH, HEIGHT), "")) > 0
    assert share(draw(thin, (100, 100), "")) == pytest.approx(0.32 + 0.9 * 0.006, abs=0.01)


FRACTIONS = st.floats(0.0, 0.9).map(lambda x: round(x, 3))


@settings(max_examples=30, deadline=None)
@given(FRACTIONS, FRACTIONS, st.floats(0.02, 1.0).map(lambda x: round(x, 3)))
def test_a_box_covers_its_share_of_the_image(x: float, y: float, side: float) -> None:
    mask = draw(parse_region(f"{x},{y},{side},{side}", ""), None, "")
    wanted = (min(1.0, x + side) - x) * (min(1.0, y + side) - y)
    assert share(mask) == pytest.approx(wanted, abs=4 / GRID)
    assert read_mask(mask, "") == mask


VOICES = ["ada", "bob", "eve"]
REGIONS = ["0,0,0.5,0.5", "0,0,1,0.5", None]


@pytest.mark.parametrize("seed", range(3))
def test_who_speaks_first_makes_no_difference(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    rows = [
        about(n, chance.choice(CLASSES), author, region=chance.choice(REGIONS))
        for n, author in itertools.product(range(3), VOICES)
    ]
    found = []
    for turn in range(3):
        with Store.open(tmp_path / str(turn)) as store:
            prepare(store)
            inspected(store)
            for tick, row in enumerate(rows):
                say(store, row, now_ms=NOW + tick)
            found.append(effective_labels(store, "farm", label=word))
        chance.shuffle(rows)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("model", ["kill", "power loss"])
def test_a_crash_in_an_intake_loses_no_mask_that_a_row_names(tmp_path: Path, model: Model) -> None:
    """A row that is there can be learned from; what was acknowledged is there."""
    rows = [about(n, region=f"0,0,1,0.{n + 1}") for n in range(3)]
    prepared = tmp_path / "prepared"
    with Store.open(prepared) as store:
        prepare(store)
        inspected(store)

    def work(home: Path, acknowledge: Any) -> None:
        shutil.copytree(prepared, home, dirs_exist_ok=True)
        with Store.open(home) as store:
            say(store, *rows)
            acknowledge("said")

    def check(home: Path, acknowledged: tuple[str, ...]) -> Iterator[str]:
        with Store.open(home) as store:
            kept = store.feedback.all("farm")
            if acknowledged and len(kept) != len(rows):
                yield f"{len(kept)} rows are left"
            if kept and len(effective_labels(store, "farm", label=word)) != len(rows):
                yield "a lesson is missing"
            if not store.ledger.verify().ok:
                yield "the chain is broken"

    report = crash_everywhere(work, check, tmp_path / "crashes", model=model, step=3)
    assert report.violations == ()
    assert report.points > 6
