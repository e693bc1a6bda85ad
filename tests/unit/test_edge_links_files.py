"""Folders of images and CSV files that others write while they are read."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.edge.clocks import HandClock
from genba.edge.links import Around, Reading
from genba.edge.links.files import FilesLink
from genba.edge.links.settings import FieldColumn, FilesSettings


def link(folder: Path, cursor: str = "", **more: Any) -> FilesLink:
    settings = FilesSettings(name="files", folder=str(folder), **more)
    made = FilesLink(settings, Around(clock=HandClock()))
    if cursor:
        made.resume(cursor)
    return made


def read(made: FilesLink, looks: int = 4) -> list[Reading]:
    """Look so many times; a clock in the hand passes the time between."""
    stop = threading.Event()
    clock: Any = made._clock
    waits = 0

    def wait(event: threading.Event, duration_ms: float) -> bool:
        nonlocal waits
        waits += 1
        clock.turn(int(duration_ms))
        if waits >= looks:
            event.set()
        return event.is_set()

    clock.wait = wait
    return list(made.readings(stop))


def test_images_in_the_order_in_which_they_were_finished(tmp_path: Path) -> None:
    for at, name in enumerate(("b.png", "a.png", "note.txt")):
        path = tmp_path / name
        path.write_bytes(name.encode())
        os.utime(path, ns=(at * 10**9, at * 10**9))
    made = link(tmp_path, pattern="*.png", entity="camera")
    found = read(made)
    assert [(r.image, r.time_ms, r.entity) for r in found] == [
        (b"b.png", 0, "camera"),
        (b"a.png", 1_000, "camera"),
    ]
    (tmp_path / "c.png").write_bytes(b"new")
    assert [r.image for r in read(made)] == [b"new"]
    assert [r.image for r in read(link(tmp_path, found[0].cursor, pattern="*.png"))] == [
        b"a.png",
        b"new",
    ]


def test_an_image_that_still_grows_waits(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"half")
    made = link(tmp_path)
    assert read(made, looks=1) == []
    path.write_bytes(b"half and the rest")
    assert [r.image for r in read(made)] == [b"half and the rest"]


def test_rows_of_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("time,entity,flow,heat\n1000,a,1.5,x\nsoon,a,1,2\n\n2000,b,2,3\n30")
    made = link(tmp_path, format="csv", pattern="*.csv")
    found = read(made)
    assert [(r.id, r.time_ms, r.values) for r in found] == [
        ("files/a@1000", 1_000, {"flow": 1.5, "heat": None}),
        ("files/b@2000", 2_000, {"flow": 2.0, "heat": 3.0}),
    ]
    assert (made.standing.refused, made.standing.bad) == (1, 1)
    with path.open("a") as file:
        file.write("00,a,4,5\n")
    assert [r.time_ms for r in read(made)] == [3_000]
    again = link(tmp_path, found[0].cursor, format="csv", pattern="*.csv")
    assert [r.time_ms for r in read(again)] == [2_000, 3_000]
    path.write_text("time,flow\n9000,1\n")  # begun anew, with other columns
    assert [(r.time_ms, r.values) for r in read(made)] == [(9_000, {"flow": 1.0})]


def test_named_columns_are_scaled(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("t,Flow\n2026-11-23T00:00:00,5\n")
    columns = {"flow": FieldColumn(field="Flow", scale=2.0, offset=1.0)}
    found = read(link(tmp_path, format="csv", time_field="t", columns=columns, entity="a"))
    assert [(r.entity, r.values, r.time_ms) for r in found] == [
        ("a", {"flow": 11.0}, 1_795_392_000_000)
    ]


def test_answers_are_appended(tmp_path: Path) -> None:
    made = link(tmp_path, answers=str(tmp_path / "answers.jsonl"), pattern="*.png")
    assert made.publish(3, {"entity": "a"})
    assert made.publish(4, {"entity": "b"})
    assert made.confirmed() == [3, 4]
    assert made.confirmed() == []
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["entity"] for line in lines] == ["a", "b"]
    nowhere = link(tmp_path, answers=str(tmp_path / "no" / "file"))
    assert not nowhere.publish(5, {})
    assert "cannot be written" in nowhere.standing.detail


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    made = link(tmp_path / "later")
    assert read(made) == []
    assert "no folder" in made.standing.detail
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.png").write_bytes(b"x")
    assert [r.image for r in read(made)] == [b"x"]
    assert made.standing.connected


@pytest.mark.parametrize("cursor", ["{", "[]", '["x", 1]', "7"])
def test_a_place_that_was_lost_begins_again(tmp_path: Path, cursor: str) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    made = link(tmp_path, cursor)
    assert "read again" in made.standing.detail
    assert len(read(made)) == 1


def test_a_pattern_stays_in_its_folder(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="leaves the folder"):
        link(tmp_path, pattern="../*")
