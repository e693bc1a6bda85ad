"""The story is the ledger in sentences: nothing that is not there, nothing told twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genba.core.rollout import Action
from genba.stages.deploy import deploy
from genba.store.home import Store
from genba.testing.serving import small_package
from genba.ui.demo.story import Happening, Story


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


@pytest.fixture
def told() -> list[Happening]:
    return []


@pytest.fixture
def story(store: Store, told: list[Happening]) -> Story:
    return Story(store, "pump", told.append)


def finding(name: str, statistic: float, *, drifted: bool, kind: str = "input") -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "statistic": statistic, "null_q": 0.25, "drifted": drifted,
    }  # fmt: skip


def test_a_life_is_told_in_order(store: Store, story: Story, told: list[Happening]) -> None:
    first, second = (small_package(store, "pump", seed=seed) for seed in (0, 1))
    ledger = store.ledger
    story.act("Beginning")
    story.say("it begins")
    story.act("Life")
    done = {"run": "run-1", "outcome": "done", "package": first, "seconds": 2.5}
    ledger.append("run.finished", done, line="pump", subject="run-1")
    deploy(store, "pump", "deploy", first, reason="the first", by="a test")
    assert story.stable() == ""
    assert [event.kind for event in story.read()] == [
        *("package.created", "package.signed") * 2,  # of which there is nothing to tell
        *("run.finished", "deploy"),
    ]
    assert story.stable() == first
    ledger.append("trigger", {"trigger": "drift", "reason": "wind has drifted"}, line="pump")
    deploy(store, "pump", "canary", second, share=0.1, reason="it passed", by="a test")
    deploy(store, "pump", "promote", second, reason="it is better", by="a test")
    deploy(store, "pump", "roll_back", second, reason="it is not", by="a test")
    ledger.append("trigger", {"reason": "not ours"}, line="fan")
    story.read("2024-05-06")
    assert story.read() == []
    assert story.stable() == first
    one, other = first[:12], second[:12]
    parts = [
        ("it begins",),
        ("run-1", one, "2.5 s"),
        ("deploy", one, "the first"),
        ("train", "wind has drifted"),
        ("canary", other, "10%", "it passed"),
        ("promote", other, "it is better"),
        ("roll back", other, "it is not"),
    ]
    for happening, words in zip(told, parts, strict=True):
        assert all(word in happening.what for word in words), happening
    assert told == story.happenings
    assert [h.act for h in told] == ["Beginning"] + ["Life"] * 6
    assert [h.date for h in told] == [""] * 3 + ["2024-05-06"] * 4
    assert [h.at_s for h in told] == sorted(h.at_s for h in told)
    assert 0 <= told[-1].at_s <= story.seconds


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"outcome": "refused", "stop": ["r2 is 0.5.", "It leaks."]}, "r2 is 0.5. It leaks."),
        ({"outcome": "failed", "problem": {"what": "The disk is full."}}, "The disk is full."),
        ({"outcome": "cancelled", "stop": []}, ""),
    ],
)
def test_a_run_that_made_nothing_says_why(
    store: Store, story: Story, told: list[Happening], body: dict[str, Any], why: str
) -> None:
    store.ledger.append("run.finished", {"run": "run-1", "seconds": 1.0, **body}, line="pump")
    story.read()
    assert told[0].what == f"run-1 {body['outcome']} after 1.0 s: {why}"


def test_drift_is_told_once_for_each_package_in_production(
    store: Store, story: Story, told: list[Happening]
) -> None:
    def watched(*findings: dict[str, Any]) -> list[str]:
        before = len(told)
        store.ledger.append("watch", {"package": "p", "findings": list(findings)}, line="pump")
        story.read()
        return [happening.what for happening in told[before:]]

    wind = finding("wind", 1.5, drifted=True)
    score = finding("score", 0.5, drifted=True, kind="output")
    calm = finding("wind", 0.1, drifted=False)
    quality = finding("wind", 9.0, drifted=True, kind="quality")
    assert watched(calm, quality) == []
    (sentence,) = watched(wind)
    assert all(word in sentence for word in ("wind", "1.50", "0.25"))
    (sentence,) = watched(wind, score)
    assert "score" in sentence
    assert "wind" not in sentence
    assert watched(calm) == watched(wind, score) == []
    package = small_package(store, "pump")
    deploy(store, "pump", "deploy", package, reason="another", by="a test")
    _, sentence = watched(wind)
    assert "wind" in sentence


def test_it_knows_whether_a_run_was_asked_for_and_has_not_ended(store: Store, story: Story) -> None:
    seen = [story.is_training]
    for kind in ("trigger", "run.started", "run.finished", "trigger"):
        body = {"reason": "labels: 3", "run": "run-1", "outcome": "refused"}
        store.ledger.append(kind, body, line="pump")
        story.read()
        seen.append(story.is_training)
    assert seen == [False, True, True, False, True]


def test_it_knows_whether_a_challenger_is_judged(store: Store, story: Story) -> None:
    first, second, third = (small_package(store, "pump", seed=seed) for seed in range(3))
    seen = []
    steps: tuple[tuple[Action, str], ...] = (
        ("deploy", first),
        ("canary", second),
        ("promote", second),
        ("shadow", third),
        ("withdraw", third),
    )
    for action, package in steps:
        share = 0.5 if action == "canary" else 0.0
        deploy(store, "pump", action, package, share=share, reason="", by="a test")
        story.read()
        seen.append(story.is_judging)
    assert seen == [False, True, False, True, False]


def test_a_happening_belongs_to_an_act(story: Story, told: list[Happening]) -> None:
    story.say("before all acts")
    story.act("Drills")
    story.say("a drill", "2024-05-06")
    assert [(h.act, h.date) for h in told] == [("", ""), ("Drills", "2024-05-06")]


def test_a_run_is_waited_for_until_it_ends_or_the_time_is_up(store: Store, story: Story) -> None:
    story.wait_for_run(60)  # nothing is under way
    store.ledger.append("trigger", {"reason": "drift: wind"}, line="pump")
    story.read()
    story.wait_for_run(0.01)
    assert story.is_training
    body = {"run": "run-1", "outcome": "done", "package": "p"}
    store.ledger.append("run.finished", body, line="pump")
    story.wait_for_run(60)
    assert not story.is_training


def test_events_are_found_behind_a_moment(store: Store, story: Story) -> None:
    for n in range(3):
        store.ledger.append("trigger", {"reason": str(n)}, line="pump")
    story.read()
    first = story.find("trigger")
    assert first is not None
    assert first.body["reason"] == "0"
    later = story.find("trigger", after=first.seq, having=lambda e: e.body["reason"] != "1")
    assert later is not None
    assert later.body["reason"] == "2"
    assert story.seq == later.seq
    assert story.find("trigger", after=story.seq) is None
    assert story.find("deploy") is None
