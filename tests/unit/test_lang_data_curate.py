"""Languages, sources of other kinds, segments of bounded size, and how a line names its texts."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.data.sources import source_of
from genba.data.sources.textfiles import TextFiles
from genba.data.texts import Texts, pieces
from genba.data.texts.parent import TextParent
from genba.data.texts.reading import check_columns
from genba.store.home import Store
from tests.unit import text_rows as texts


class Speaks:
    """Takes every text with an x in it for Welsh, and is sure of none of its numbers."""

    def language(self, text: str) -> str:
        return "" if "7" in text else "cy" if "x" in text else "en"


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def test_other_languages_are_left_out(store: Store, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("genba.data.texts.curate.resolve", lambda kind, name: Speaks)
    records = [{**pair, "a": f"{pair['a']} {'x' if n < 4 else 'y'}{'7' if n < 2 else ''}"}
               for n, pair in enumerate(texts.faq())]  # fmt: skip
    path = texts.write(tmp_path / "faq.jsonl", records)
    view = texts.taken(store, texts.line(path, checks={"language": {"allowed": ("en",)}}))
    left_out = {row["file"]: row["detail"] for row in texts.rejects(view)}
    foreign = [
        n for n, r in enumerate(records) if "x" in f"{r['q']} {r['a']}" and "7" not in r["a"]
    ]
    assert left_out == {f"faq.jsonl:{n + 1}": "cy" for n in foreign}
    assert view.version.rejected == {"another language": len(foreign)}
    assert view.sheet()["texts"]["languages"]["cy"] == len(foreign)


def test_a_source_of_numbers_is_refused() -> None:
    with pytest.raises(Problem) as raised:
        check_columns(pa.schema([("time", pa.int64()), ("flow", pa.float64())]))
    assert raised.value.code == "G250"
    assert "time, flow" in raised.value.why


def test_large_segments_are_cut(store: Store, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(pieces, "MOST_BYTES", 400)
    path = texts.write(tmp_path / "faq.jsonl", texts.faq())
    view = texts.taken(store, texts.line(path))
    assert len(view.version.segments) > 6
    assert len(texts.rows(view)) == 20
    chunks = [len(chunk["row"]) for chunk in view.chunks("train", rows=1)]
    assert set(chunks) == {1}
    assert np.isnan(view.ends()).all()


def test_spilled_rows_come_back_in_any_choice(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(pieces, "MOST_ROWS", 3)
    with pieces.TextSpill(tmp_path) as spill:
        for start in range(0, 10, 4):
            count = min(4, 10 - start)
            names = [str(n) for n in range(start, start + count)]
            frame = pl.DataFrame({name: names for name in pieces.TEXTS})
            spill.add(frame.to_arrow())
        spill.done()
        tables = list(spill.read(np.array([0, 1, 3, 4, 5, 8, 9])))
        assert [len(table) for table in tables] == [3, 3, 1]
        assert pa.concat_tables(tables)["name"].to_pylist() == ["0", "1", "3", "4", "5", "8", "9"]
    assert not list(tmp_path.glob("spill-*"))


def test_the_task_of_a_line_decides_how_its_files_are_read(tmp_path: Path) -> None:
    path = texts.write(tmp_path / "faq.jsonl", texts.faq())
    chat = source_of(Line(name="a", task="language.chat", data=Data(source=f"files:{path}")))
    table = source_of(Line(name="a", task="sensor.anomaly", data=Data(source=f"files:{path}")))
    assert isinstance(chat._of_images(), TextFiles)  # type: ignore[attr-defined]  # of FileSource
    assert table._of_images() is None  # type: ignore[attr-defined]  # of FileSource
    assert chat.facts().fingerprint != table.facts().fingerprint
    (tmp_path / "copy.jsonl").write_bytes(path.read_bytes())
    again = Data(source=f"files:{tmp_path / 'copy.jsonl'}")
    assert source_of(Line(name="a", task="language.chat", data=again)).facts().fingerprint == (
        chat.facts().fingerprint
    )


def test_the_modality_is_what_the_protocol_asks_for(store: Store, tmp_path: Path) -> None:
    line = texts.line(texts.write(tmp_path / "faq.jsonl", texts.faq()))
    view = texts.taken(store, line)
    assert isinstance(Texts.parent(store, view.version), TextParent)
    Texts.refuse_leakage(view)
    again = Texts.ingest(source_of(line), line, store, Quiet(), parent=None, split_by="random")
    assert again.id == view.version.id


class Quiet:
    def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
        pass
