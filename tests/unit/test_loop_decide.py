"""The life of a challenger, decided step by step from events alone."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.loop.state import LineState, advance, initial
from tests.unit.loop_story import Story, line


def test_a_line_without_events_needs_nothing() -> None:
    assert Story(line()).decided() == ()


def test_the_first_package_is_deployed_with_the_key_the_run_itself_uses() -> None:
    action = Story(line()).finished("a").only()
    assert (action.kind, action.key) == ("deploy", "first:pump:a")


def test_a_package_that_passed_becomes_a_canary() -> None:
    action = Story(line()).with_stable().finished("b").only()
    assert (action.kind, action.package, action.share) == ("canary", "b", 0.1)


def test_without_a_share_it_becomes_a_shadow() -> None:
    assert Story(line(canary=0.0)).with_stable().finished("b").only().kind == "shadow"


@pytest.mark.parametrize("verdict", [None, {}, {"passed": False}, {"passed": "yes"}])
def test_a_package_without_a_clear_verdict_is_never_offered(verdict: Any) -> None:
    story = Story(line()).with_stable()
    story.tell("run.finished", run="r", outcome="done", package="b", verdict=verdict)
    assert story.decided() == ()


def test_a_package_in_service_or_condemned_is_no_candidate() -> None:
    story = Story(line()).with_stable().finished("a")
    assert story.decided() == ()
    story.finished("b").tell("deploy", action="canary", package="b", share=0.1)
    story.tell("deploy", action="withdraw", package="b").finished("b")
    assert story.decided() == ()


def test_a_candidate_condemned_while_it_waits_is_not_offered() -> None:
    story = Story(line()).with_canary().finished("c")
    assert story.state.candidate is not None
    story.tell("deploy", action="withdraw", package="b")
    assert story.only().package == "c"
    story.tell("deploy", action="withdraw", package="c")
    assert story.decided() == ()


def test_the_canary_is_judged_after_so_many_predictions_and_not_before() -> None:
    story = Story(line()).with_canary().served(4, a=900, b=100)
    assert story.decided() == ()
    action = story.served(a=900, b=100).only()
    assert (action.kind, action.package) == ("promote", "b")
    assert "500 predictions, 0 errors" in action.reason


def test_a_shadow_is_judged_like_a_canary() -> None:
    story = Story(line(canary=0.0)).with_stable().finished("b")
    story.tell("deploy", action="shadow", package="b").served(5, a=900, b=100)
    assert story.only().kind == "promote"


def test_predictions_before_the_canary_was_placed_are_not_compared() -> None:
    story = Story(line()).with_stable().served(9, a={"n": 1_000, "alarms": 1_000}).finished("b")
    story.tell("deploy", action="canary", package="b", share=0.1).served(5, a=900, b=100)
    assert story.state.beside.alarms == 0
    assert story.only().kind == "promote"


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 100, "errors": 30},
        {"n": 100, "not_a_number": 10},
        {"n": 100, "latency_ms_p50": 80, "latency_ms_p99": 90},
    ],
)
def test_a_misbehaving_canary_is_withdrawn_before_it_is_due(bad: Mapping[str, float]) -> None:
    action = Story(line()).with_canary().served(3, a=900, b=bad).only()
    assert (action.kind, action.package) == ("withdraw", "b")


def test_a_canary_that_alarms_too_often_is_withdrawn_when_it_is_due() -> None:
    story = Story(line()).with_canary().served(5, a=900, b={"n": 100, "alarms": 20})
    action = story.only()
    assert action.kind == "withdraw"
    assert "above the margin" in action.reason


def test_a_package_no_server_can_load_is_taken_out() -> None:
    why = {"code": "G604", "what": "It is damaged."}
    story = Story(line()).with_canary().tell("serve.load_failed", package="b", **why)
    assert story.only().kind == "withdraw"
    story.tell("deploy", action="promote", package="b")
    story.tell("serve.load_failed", package="b", **why)
    action = story.only()
    assert (action.kind, action.package) == ("roll_back", "b")
    assert "the server could not load it: G604 It is damaged." in action.reason


def test_load_failures_of_packages_not_in_service_are_nobodys_concern() -> None:
    assert Story(line()).with_stable().tell("serve.load_failed", package="x").decided() == ()


def test_asking_waits_for_an_answer_and_asks_once() -> None:
    story = Story(line("ask")).with_canary().served(5, a=900, b=100)
    question = story.only()
    assert question.kind == "ask"
    story.note(question)
    assert story.decided() == ()
    story.served(5, a=900, b=100)
    assert story.decided() == ()
    story.tell("approval", package="b", approved=True)
    assert story.only().kind == "promote"


def test_an_early_approval_does_not_replace_the_judgement() -> None:
    story = Story(line("ask")).with_canary().tell("approval", package="b", approved=True)
    assert story.decided() == ()
    assert story.served(5, a=900, b=100).only().kind == "promote"


def test_the_newest_answer_counts_and_no_means_out() -> None:
    story = Story(line("ask")).with_canary().tell("approval", package="b", approved=True)
    action = story.tell("approval", package="b", approved=False).only()
    assert (action.kind, action.reason) == ("withdraw", "it was not approved")


def test_answers_about_packages_nobody_asked_about_are_dropped() -> None:
    story = Story(line("ask")).with_stable().tell("approval", package="z", approved=True)
    assert story.state.approvals == {}


def test_a_line_that_observes_notes_what_it_would_do_and_does_it_once() -> None:
    story = Story(line("observe")).with_stable().finished("b")
    action = story.only()
    assert (action.kind, action.would) == ("canary", True)
    assert story.note(action).decided() == ()


def test_a_line_that_observes_would_train_again_only_on_new_evidence() -> None:
    story = Story(line("observe")).with_stable().tell("feedback.received", labels=10)
    action = story.only()
    assert (action.kind, action.would) == ("start_run", True)
    story.tell("action", action="start_run", key=action.key, attempt=1, would=True)
    assert story.decided() == ()
    again = story.tell("feedback.received", labels=10).only()
    assert again.key != action.key


def test_a_bad_stable_package_is_rolled_back_at_once_with_its_numbers() -> None:
    story = Story(line()).with_canary().tell("deploy", action="promote", package="b")
    action = story.served(b={"n": 100, "errors": 50}).only()
    assert (action.kind, action.package) == ("roll_back", "b")
    assert action.reason == (
        "error_rate is 0.5 (50 of the newest 100 predictions), above 0.01; back to a"
    )


def test_probation_has_no_end_but_old_windows_are_forgotten() -> None:
    story = Story(line()).with_canary().tell("deploy", action="promote", package="b")
    story.served(20, b=500).served(2, b={"n": 250, "errors": 25})
    assert story.only().kind == "roll_back"


def test_after_a_rollback_the_old_window_is_not_held_against_the_package_that_returns() -> None:
    story = Story(line()).with_canary().tell("deploy", action="promote", package="b")
    story.served(b={"n": 100, "errors": 50}).tell("deploy", action="roll_back", package="b")
    assert story.state.stable.n == 0
    assert story.decided() == ()


def test_without_an_earlier_package_there_is_one_alert_and_no_outage() -> None:
    story = Story(line()).with_stable().served(a={"n": 100, "errors": 50})
    action = story.only()
    assert action.kind == "alert"
    assert "no earlier package" in action.reason
    assert story.note(action).served(a={"n": 100, "errors": 50}).decided() == ()


def test_the_stable_package_comes_before_the_canary() -> None:
    story = Story(line()).with_canary().tell("deploy", action="promote", package="b")
    story.finished("c").tell("deploy", action="canary", package="c", share=0.1)
    story.served(b={"n": 90, "errors": 90}, c={"n": 10, "errors": 10})
    assert story.only().kind == "roll_back"
    story.tell("deploy", action="roll_back", package="b")
    assert (story.only().kind, story.only().package) == ("withdraw", "c")


def test_what_the_guard_refuses_is_not_offered_again() -> None:
    story = Story(line()).with_stable().finished("b")
    story.tell("action", action="refused", key=story.only().key, package="b")
    assert story.decided() == ()


def test_a_trigger_that_does_not_exist_is_a_problem() -> None:
    story = Story(line(moon=1.0)).with_stable()
    with pytest.raises(Problem, match="G105"):
        story.decided()


def test_signs_of_life_of_unknown_runs_and_unknown_kinds_change_nothing() -> None:
    story = Story(line())
    before = story.state
    story.tell("stage.finished", run="ghost").tell("trigger", trigger="labels")
    assert story.state.running == before.running == {}


def test_events_of_other_lines_and_events_already_folded_are_skipped() -> None:
    story = Story(line()).with_stable()
    assert advance(story.state, story.events) == story.state
    assert advance(LineState(line="other"), story.events) == LineState(line="other")


@given(cut=st.integers(0, 12))
def test_folding_in_pieces_is_folding_at_once(cut: int) -> None:
    story = Story(line()).with_canary().served(3, a=900, b=100)
    story.tell("watch", package="a", window=0, cursor={"seq": 4, "row": 2}, findings=[])
    story.tell("feedback.received", labels=3).tell("approval", package="b", approved=True)
    pieces = advance(advance(initial(story.line), story.events[:cut]), story.events[cut:])
    assert pieces == advance(initial(story.line), story.events) == story.state


def test_batches_without_predictions_and_unknown_packages_are_skipped() -> None:
    story = Story(line()).with_stable().served(a=0, z=100)
    assert (story.state.stable.n, story.state.challenger.n) == (0, 0)
