"""The guard of production: what may never happen does not, whoever asks."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.core.codec import encode
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.core.rollout import Action, Rollout, fold
from genba.edge.signature import sign
from genba.stages import pipeline
from genba.stages.deploy import approve, deploy
from genba.store.home import Store
from genba.store.signing import Signer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        for package in ("a", "b", "c"):
            add(opened, package)
        yield opened


def add(store: Store, package: str, *, passed: Any = True, line: str = "pump") -> None:
    gates = [{"name": "r2", "passed": passed, "reason": "r2 is 0.91, at least 0.95 asked for."}]
    body = {"line": line, "verdict": {"passed": passed, "gates": gates}}
    store.ledger.record("package", package, body, line=line)


def do(store: Store, action: Action, package: str, **more: Any) -> None:
    deploy(store, "pump", action, package, reason="test", by="test", **more)


def production(store: Store) -> Rollout:
    return fold(store.ledger.events(line="pump", kinds=("deploy",)))


def refusal(store: Store, action: Action, package: str, **more: Any) -> Problem:
    before = store.ledger.head()
    with pytest.raises(Problem) as caught:
        do(store, action, package, **more)
    assert store.ledger.head() == before
    assert caught.value.tries
    return caught.value


def test_a_life_in_production(store: Store) -> None:
    do(store, "deploy", "a")
    do(store, "canary", "b", share=0.1)
    do(store, "promote", "b")
    now = production(store)
    assert now.stable is not None
    assert (now.stable.package, now.previous, now.canary) == ("b", "a", None)
    do(store, "roll_back", "b")
    do(store, "shadow", "c")
    do(store, "withdraw", "c")
    now = production(store)
    assert now.stable is not None
    assert (now.stable.package, sorted(now.condemned)) == ("a", ["b", "c"])


def test_every_change_says_why_and_by_whom(store: Store) -> None:
    event = deploy(store, "pump", "deploy", "a", reason="first", by="ada", key="k")
    assert event.subject == "a"
    assert dict(event.body) == {
        "action": "deploy",
        "package": "a",
        "reason": "first",
        "by": "ada",
        "key": "k",
    }


def test_a_key_makes_a_change_happen_once_even_when_it_no_longer_fits(store: Store) -> None:
    do(store, "deploy", "a")
    first = deploy(store, "pump", "canary", "b", share=0.1, reason="x", by="x", key="k")
    do(store, "promote", "b")
    again = deploy(store, "pump", "canary", "b", share=0.1, reason="x", by="x", key="k")
    assert again == first


def test_g520_a_package_nobody_made(store: Store) -> None:
    assert refusal(store, "deploy", "ghost").code == "G520"


@pytest.mark.parametrize("passed", [False, None, "true"])
def test_g521_a_package_that_missed_a_gate_says_which(store: Store, passed: Any) -> None:
    add(store, "bad", passed=passed)
    problem = refusal(store, "deploy", "bad")
    assert problem.code == "G521"
    if passed is False:
        assert "r2 is 0.91" in problem.why


def test_g521_a_package_without_a_verdict(store: Store) -> None:
    store.ledger.record("package", "none", {"line": "pump"}, line="pump")
    assert refusal(store, "deploy", "none").code == "G521"


@pytest.mark.parametrize("action", ["deploy", "canary", "shadow"])
def test_g522_what_was_taken_out_never_comes_back(store: Store, action: Action) -> None:
    do(store, "deploy", "a")
    do(store, "canary", "b", share=0.1)
    do(store, "withdraw", "b")
    assert refusal(store, action, "b", share=0.1).code == "G522"


def test_g523_a_package_of_another_line(store: Store) -> None:
    add(store, "foreign", line="mill")
    assert refusal(store, "deploy", "foreign").code == "G523"


def signed(store: Store, package: str, **changes: Any) -> None:
    signer = Signer(store.path)
    signature = sign(package, signer.public_key, signer.sign)
    body = {**encode(signature), **changes}
    store.ledger.append("package.signed", body, line="pump", subject=package)


def test_g527_a_package_whose_signature_does_not_verify(store: Store) -> None:
    signed(store, "a")
    signed(store, "b", signature="00" * 64)
    signed(store, "c")
    signed(store, "c", public_key="00" * 32)  # a second one, beside a good one
    do(store, "deploy", "a")
    for action in ("deploy", "canary", "shadow"):
        problem = refusal(store, action, "b", share=0.1)
        assert problem.code == "G527"
        assert problem.why == "It does not fit its public key."
        assert refusal(store, action, "c", share=0.1).code == "G527"
    with pytest.raises(Problem) as caught:
        approve(store, "pump", "b", by="ada")
    assert caught.value.code == "G527"


def test_a_package_whose_signature_does_not_verify_may_still_be_taken_out(store: Store) -> None:
    do(store, "deploy", "a")
    do(store, "canary", "b", share=0.1)
    signed(store, "b", signature="00" * 64)
    assert refusal(store, "promote", "b").code == "G527"
    do(store, "withdraw", "b")
    assert production(store).canary is None


@pytest.mark.parametrize(
    ("action", "package"),
    [
        ("canary", "a"),
        ("shadow", "a"),
        ("promote", "b"),
        ("promote", "a"),
        ("withdraw", "a"),
        ("withdraw", "b"),
        ("roll_back", "b"),
        ("dance", "a"),
    ],
)
def test_g524_an_action_that_does_not_fit(store: Store, action: Action, package: str) -> None:
    do(store, "deploy", "a")
    assert refusal(store, action, package, share=0.1).code == "G524"


@pytest.mark.parametrize("action", ["canary", "shadow", "promote"])
def test_g524_a_challenger_needs_somebody_to_challenge(store: Store, action: Action) -> None:
    assert refusal(store, action, "a", share=0.1).code == "G524"


def test_g525_the_only_package_is_not_taken_out(store: Store) -> None:
    do(store, "deploy", "a")
    problem = refusal(store, "roll_back", "a")
    assert problem.code == "G525"
    assert "without an answer" in problem.why


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_g526_a_canary_gets_a_part_of_the_traffic(store: Store, share: float) -> None:
    do(store, "deploy", "a")
    assert refusal(store, "canary", "b", share=share).code == "G526"


def test_answers_are_recorded_with_their_author(store: Store) -> None:
    yes = approve(store, "pump", "b", by="ada", reason="looks right")
    no = approve(store, "pump", "b", approved=False, by="bob")
    assert (yes.kind, yes.body["approved"], yes.body["by"]) == ("approval", True, "ada")
    assert (no.body["approved"], no.seq) == (False, yes.seq + 1)


def test_what_could_never_be_deployed_cannot_be_approved(store: Store) -> None:
    add(store, "bad", passed=False)
    with pytest.raises(Problem, match="G521"):
        approve(store, "pump", "bad", by="ada")


ACTIONS: tuple[Action, ...] = ("deploy", "canary", "shadow", "promote", "roll_back", "withdraw")


@settings(max_examples=20)
@given(
    tries=st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.sampled_from(["a", "b", "c", "bad"])), max_size=25
    )
)
def test_no_sequence_of_wishes_puts_a_wrong_package_in_service(
    tmp_path_factory: pytest.TempPathFactory, tries: list[tuple[Action, str]]
) -> None:
    with Store.open(tmp_path_factory.mktemp("wishes")) as store:
        for package in ("a", "b", "c"):
            add(store, package)
        add(store, "bad", passed=False)
        had_stable = False
        for action, package in tries:
            before = production(store).condemned
            with suppress(Problem):
                do(store, action, package, share=0.1)
            now = production(store)
            assert "bad" not in now.packages
            assert not set(now.packages) & before
            had_stable = had_stable or now.stable is not None
            assert (now.stable is not None) == had_stable


def test_only_the_first_package_takes_the_place_of_nobody(store: Store) -> None:
    do(store, "deploy", "a")
    problem = refusal(store, "deploy", "b")  # two first runs at once: one of them was the first
    assert problem.code == "G524"
    do(store, "deploy", "a")
    now = production(store)
    assert now.stable is not None
    assert (now.stable.package, now.previous) == ("a", None)


def test_of_two_first_runs_the_slower_one_makes_a_challenger(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(name="pump", task="sensor.anomaly", data=Data(source="files:x.csv"))
    made: Any = SimpleNamespace(results={"package": {"package": "b"}})
    do(store, "deploy", "a")  # between its look at production and its own wish
    monkeypatch.setattr(pipeline, "rollout_of", lambda *_: Rollout())
    assert not pipeline._deploy_first(line, store, made)
    assert production(store).packages == ("a",)


def test_a_package_that_returns_by_a_rollback_is_no_challenger_of_itself(store: Store) -> None:
    do(store, "deploy", "a")
    do(store, "shadow", "b")
    do(store, "promote", "b")
    do(store, "canary", "a", share=0.1)
    do(store, "roll_back", "b")
    now = production(store)
    assert now.stable is not None
    assert (now.stable.package, now.canary) == ("a", None)
