"""`genba new KIND NAME`: the templates keep the contract of their kind, under any name."""

import importlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.catalog import KINDS
from genba.core import resolve
from genba.core.ids import NAME_PATTERN
from genba.core.line import Data, Limits
from genba.core.problem import Problem
from genba.core.values import Measure
from genba.testing import kit
from genba.testing.graphs import small_batch, small_graph
from genba.ui.cli.scaffold import SCAFFOLDS, Names

NAME = "template-name"
F32 = {"precision": "float32"}


def template(kind: str) -> Any:
    """The class of a template, as it lies in the package."""
    module = importlib.import_module(f"genba.ui.templates.{kind}.genba_template.{kind}")
    return getattr(module, f"Template{kind.capitalize()}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def catalogued(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The templates as entries of the catalog, under the names they have as templates."""
    for kind in SCAFFOLDS:
        address = f"genba.ui.templates.{kind}.genba_template.{kind}:Template{kind.capitalize()}"
        monkeypatch.setitem(KINDS[kind], NAME if kind == "task" else f"{NAME}-{kind}", address)
    resolve.names.cache_clear()
    yield
    resolve.names.cache_clear()


@pytest.mark.parametrize("kind", SCAFFOLDS)
@pytest.mark.usefixtures("catalogued")
def test_a_template_keeps_the_contract_of_its_kind(kind: str) -> None:
    results = kit.check(kind, NAME if kind == "task" else f"{NAME}-{kind}")
    assert [r for r in results if not r.passed] == []
    assert len(results) > 3


@pytest.mark.parametrize("kind", SCAFFOLDS)
def test_a_package_is_written_under_the_name(kind: str, ask: Any, here: Path) -> None:
    code, found = ask("new", kind, "oil.well-2")
    assert code == 0
    assert found["next"] == ["pip install -e ./oil.well-2", "genba check oil.well-2"]
    written = {Path(file) for file in found["files"]}
    assert written == {p.relative_to(here) for p in here.rglob("*") if p.is_file()}
    project = tomllib.loads((here / "oil.well-2" / "pyproject.toml").read_text())
    kind_word = kind.capitalize()
    assert project["project"]["name"] == "genba-oil-well-2"
    assert project["project"]["entry-points"] == {
        f"genba.{kind}s": {"oil.well-2": f"genba_oil_well_2.{kind}:OilWell2{kind_word}"}
    }
    for path in written:
        text = (here / path).read_text()
        assert "template" not in text.lower().replace("template-", ""), path
        if path.suffix == ".py":
            compile(text, str(path), "exec")


def test_nothing_is_overwritten_without_being_asked(ask: Any, here: Path) -> None:
    assert ask("new", "engine", "fast")[0] == 0
    module = here / "fast" / "genba_fast" / "engine.py"
    written = module.read_text()
    module.write_text("mine")
    code, found = ask("new", "engine", "fast")
    assert (code, found["problem"]["code"]) == (2, "G111")
    assert module.read_text() == "mine"
    assert ask("new", "engine", "fast", "--force")[0] == 0
    assert module.read_text() == written


@pytest.mark.parametrize(
    ("argv", "code", "tries"),
    [
        (["engin", "x"], "G110", "genba new engine x"),
        (["zzz", "x"], "G110", "genba new task x"),
        (["engine", "Fast One"], "G104", 'name = "fast-one"'),
        (["engine", "../x"], "G104", 'name = "x"'),
        (["task", "onnxruntime"], "G104", "genba new task my-onnxruntime"),
        (["engine", "x", "--from", "a.csv"], "G110", "genba new engine x"),
        (["engine", "x", "--output", "power"], "G110", "genba new engine x"),
        (["task"], "G110", "genba new task NAME"),
    ],
)
def test_what_cannot_be_started_says_what_to_type(
    argv: list[str], code: str, tries: str, ask: Any, here: Path
) -> None:
    answered, found = ask("new", *argv)
    assert (answered, found["problem"]["code"]) == (2, code)
    assert tries in found["problem"]["try"]
    assert list(here.iterdir()) == []


def test_a_line_may_be_called_as_a_kind(ask: Any, here: Path) -> None:
    (here / "a.csv").write_text("x,y\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(100)))
    code, found = ask("new", "task", "--from", "a.csv")
    assert (code, found["file"]) == (0, "task.toml")


@given(st.from_regex(NAME_PATTERN, fullmatch=True), st.sampled_from(SCAFFOLDS))
def test_every_name_gives_names_that_can_be_used(entry: str, kind: str) -> None:
    names = Names.of(kind, entry)
    assert names.module.isidentifier()
    assert names.type.isidentifier()
    assert names.distribution.replace("-", "_") == names.module


class TestSource:
    def read(self, path: Path, data: Data | None = None) -> list[dict[str, Any]]:
        source = template("source")(str(path), data or Data(source="x:y"))
        return [row for batch, _ in source.batches() for row in batch.to_pylist()]

    def test_what_cannot_be_read_is_a_row_with_a_reason(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        rows = ['{"at": "2026", "flow": 1, "note": [1]}', '{"flow": "much"}', "half a li", "[2]"]
        path.write_text("\n".join([*rows, json.dumps({"flow": 10**400}), '{"flow": true}']))
        data = Data(source="x:y", time="at", inputs=("flow",))
        found = self.read(path, data)
        assert [row["flow"] for row in found] == [1.0, None, None, None, None, 1.0]
        assert [row["_reason"] for row in found] == [
            None,
            "flow is not a number",
            "not a JSON object",
            "not a JSON object",
            "flow is not a number",
            None,
        ]
        assert [row["_line"] for row in found] == [1, 2, 3, 4, 5, 6]

    def test_open_columns_are_numbers_where_all_are(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text('{"a": 1, "b": "x"}\n{"a": null, "b": 2, "c": 0.5}\n')
        first, second = self.read(path)
        assert (first["a"], first["b"], first["c"]) == (1.0, "x", None)
        assert (second["a"], second["b"], second["c"]) == (None, "2", 0.5)

    @pytest.mark.parametrize(("text", "code"), [("", "G202"), ("no\n", "G202"), ("{}\n", "G204")])
    def test_a_file_without_what_is_asked_is_refused(
        self, text: str, code: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text(text)
        with pytest.raises(Problem) as refused:
            self.read(path, Data(source="x:y", inputs=("flow",)))
        assert refused.value.code == code


class TestEngine:
    def test_a_type_it_does_not_know_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kind = template("engine")
        monkeypatch.delitem(kind.__init__.__globals__["_KINDS"], "tensor(int64)")
        with pytest.raises(Problem) as refused:
            kind(small_graph(), F32)
        assert refused.value.code == "G601"

    def test_it_is_closed_and_says_what_it_was_made_of(self) -> None:
        engine = template("engine")(small_graph(), F32)
        assert engine.settings == F32
        assert engine.model == small_graph()
        assert np.isfinite(engine.run(small_batch(3))["score"]).all()
        engine.close()
        with pytest.raises(Problem):
            engine.run(small_batch(3))


def test_the_tighter_limit_counts() -> None:
    device = template("target")()
    measures = {
        "latency_ms_p99": Measure(value=20.0, unit="ms"),
        "memory_mib": Measure(value=300.0, unit="MiB"),
        "energy_mj": Measure(value=1.0, unit="mJ"),
    }
    own = device.fits(measures, Limits())
    asked = device.fits(measures, Limits(latency_ms_p99=5, memory_mib=1_000))
    assert [sentence.split()[0] for sentence in own] == ["memory_mib"]
    assert [sentence.split()[0] for sentence in asked] == ["latency_ms_p99", "memory_mib"]
    assert NAME in own[0]
    assert device.facts()["name"] == NAME


def test_the_task_has_words_of_its_own() -> None:
    task = template("task")()
    assert (task.label("Seized"), task.label("ok"), task.label("fault")) == (1.0, 0.0, 1.0)
