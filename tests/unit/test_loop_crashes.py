"""The controller dies at every effect of a tick, and nothing is lost or done twice."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genba.stages.deploy import deploy
from genba.store.home import Store
from genba.testing.crash import Model, crash_everywhere
from tests.unit.loop_store import (
    NOW,
    finish,
    label,
    prepare,
    runner,
    serve,
)


def story(home: Path) -> None:
    """Everything a controller does, in one go: canary, promotion, a run, a rollback."""
    with Store.open(home) as store, runner(store) as made:
        made.tick(NOW)


def seed(home: Path, upto: str) -> None:
    with Store.open(home) as store:
        prepare(store)
        finish(store, "b")
        if upto in ("promote", "roll_back"):
            deploy(store, "pump", "canary", "b", share=0.1, reason="x", by="test")
            serve(store, a={"n": 10}, b={"n": 100})
        if upto == "roll_back":
            deploy(store, "pump", "promote", "b", reason="x", by="test")
            serve(store, 200, b={"n": 100, "errors": 100})
        if upto == "start_run":
            deploy(store, "pump", "canary", "b", share=0.1, reason="x", by="test")
            deploy(store, "pump", "withdraw", "b", reason="x", by="test")
            serve(store, a={"n": 160}, flow=5_000.0)
            label(store, 6)


@pytest.mark.parametrize("model", ["kill", "power loss"])
@pytest.mark.parametrize("due", ["canary", "promote", "roll_back", "start_run"])
def test_a_crash_at_any_effect_changes_nothing_in_the_end(
    tmp_path: Path, due: str, model: Model
) -> None:
    """The store is prepared before the crashing disk is in place, so only the tick can crash."""
    prepared, whole = tmp_path / "prepared", tmp_path / "whole"
    seed(prepared, due)
    shutil.copytree(prepared, whole)
    story(whole)
    wanted = history(whole)
    assert due in [action for _, action in wanted]

    def work(home: Path, _: Any) -> None:
        shutil.copytree(prepared, home, dirs_exist_ok=True)
        story(home)

    def check(home: Path, _: tuple[str, ...]) -> Iterator[str]:
        story(home)
        story(home)
        if history(home) != wanted:
            yield f"{history(home)} instead of {wanted}"

    report = crash_everywhere(work, check, tmp_path, model=model, step=3)
    assert report.violations == ()
    assert report.points > 6


def history(home: Path) -> list[tuple[str, Any]]:
    with Store.open(home) as store:
        assert store.ledger.verify().ok
        return [(e.kind, e.body.get("action")) for e in store.ledger.events(line="pump")]
