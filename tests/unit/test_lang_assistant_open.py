"""A package opened with what stands around its language model."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.core.values import EngineChoice, Manifest, Verdict
from genba.edge.assistant import Assistant
from genba.edge.assistant.seams import Parts
from genba.edge.assistant.settings import read_settings
from genba.edge.package import FORMAT, LoadedPackage
from genba.edge.predict import open_engine
from genba.store.home import Store
from genba.testing.speller import Script, Speller
from genba.testing.talking import SIGNATURE
from genba.ui.cli.trace_rested import rested


def package(files: Mapping[str, bytes]) -> LoadedPackage:
    manifest = Manifest(
        format=FORMAT,
        line="desk",
        task="language.chat",
        model="m",
        run="r",
        dataset="d",
        engine=EngineChoice(name="speller"),
        signature=SIGNATURE,
        settings={},
        entities=(),
        files={},
        verdict=Verdict(passed=True),
    )
    model = canonical_json(asdict(Script()))
    return LoadedPackage(id="", manifest=manifest, files={"model.gguf": model, **files})


def test_a_package_opens_with_what_is_in_it() -> None:
    bare = open_engine(package({}))
    assert not isinstance(bare, Assistant)
    bare.close()
    found = open_engine(package({"assistant.json": b'{"system": "Be kind."}'}))
    assert isinstance(found, Assistant)
    assert found.parts == Parts()
    assert found.plan([{"role": "user", "content": "Hi"}]).messages[0]["content"] == "Be kind."
    found.close()


@pytest.mark.parametrize("data", [b"{", b'{"sistem": ""}', b'{"format": 2}', b"[]"])
def test_a_strange_assistant_is_refused(data: bytes) -> None:
    with pytest.raises(Problem) as refused:
        open_engine(package({"assistant.json": data}))
    assert refused.value.code == "G650"
    with pytest.raises(Problem):
        read_settings(data, "here")


def test_an_engine_is_closed_when_what_stands_around_it_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Speller, "close", lambda self: closed.append(self.name))
    with pytest.raises(Problem):
        open_engine(package({"assistant.json": b"{"}))
    assert closed == ["speller"]


@pytest.mark.parametrize(
    "value", [None, "[", "5", "[5]", '[{"answer": "faq.jsonl:3"}]'], ids=lambda v: f"of {v}"
)
def test_an_answer_without_passages_rests_on_none(value: str | None, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        digest = store.blobs.put(b"{}")
        named = {"files": {"passages.json": {"digest": digest}}}
        assert rested(store, named, {"sources": value}) == []
        cited = {"sources": '[{"passage": "p"}]'}
        assert rested(store, {"files": {"passages.json": {"digest": "0" * 64}}}, cited) == []
        assert rested(store, {}, cited) == []
