"""A whole run of an assistant with documents, and documents that change afterwards."""

from dataclasses import replace
from pathlib import Path

import pytest

from genba.core.line import Limit
from genba.core.resolve import resolve
from genba.stages import renewal
from genba.stages.pipeline import run_line
from genba.store.home import Store
from genba.store.lineage import ancestors

MANUAL = """# Pump P3

Pump P3 takes two litres of mineral oil, changed every year before the winter, and the old oil is
brought to where such things are collected.
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_documents_change_and_nothing_is_trained_again(tmp_path: Path) -> None:
    for name in ("data", "manuals"):
        (tmp_path / name).mkdir()
    (tmp_path / "manuals" / "p3.md").write_text(MANUAL, encoding="utf-8")
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "How much oil?", "document": "p3.md"}', encoding="utf-8")
    line = resolve("task", "language.chat").example(tmp_path / "data")
    line = replace(
        line,
        gates={**line.gates, "hit_rate_at_3": Limit(min=0.1)},
        options={
            **line.options,
            "documents": [f"files:{tmp_path / 'manuals'}"],
            "questions": str(questions),
        },
    )
    with Store.open(tmp_path / "home") as store:
        first = run_line(line, store)
        assert (first.outcome, first.deployed) == ("done", True)
        package = str(first.package)
        kinds = {record.kind for record in ancestors(store.ledger, package).records}
        assert "documents" in kinds
        verdict = store.ledger.get("package", package)["verdict"]  # type: ignore[index]  # it is there
        assert "hit_rate_at_3" in {gate["name"] for gate in verdict["gates"]}
        changed = MANUAL.replace("two", "three")
        (tmp_path / "manuals" / "p3.md").write_text(changed, encoding="utf-8")
        done = renewal.refresh(store, line, by="mika")
        assert done.changed
        again = run_line(line, store)
        reused = {stage.name: stage.reused for stage in again.stages}
        assert reused["train"]
        assert not reused["package"]
