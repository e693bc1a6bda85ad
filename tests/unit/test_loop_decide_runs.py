"""When a challenger is trained, and what happens when training goes wrong."""

from typing import Any

import pytest

from genba.loop.decide import BACK_OFF_MS, LOST_AFTER_MS, START_GRACE_MS
from genba.loop.triggers.schedule import DAY_MS
from tests.unit.loop_story import SECOND, Story, line


def started(story: Story, **more: Any) -> Story:
    """Carry out the start of a run as the runner does, up to the run's first event."""
    action = story.only()
    assert action.kind == "start_run"
    body = {"attempt": action.attempt, "epoch": action.epoch, "reason": action.reason}
    story.tell("action", action="start_run", key=action.key, dataset="d2", **body)
    return story.tell("run.started", run="r1", reason=action.reason, **more)


def test_enough_labels_start_one_run_and_only_one() -> None:
    story = Story(line(labels=10)).with_stable().tell("feedback.received", labels=9)
    assert story.decided() == ()
    started(story.tell("feedback.received", labels=1))
    assert story.decided() == ()
    assert story.tell("feedback.received", labels=50).decided() == ()
    assert list(story.state.running) == ["r1"]
    assert story.state.running["r1"].requested


def test_a_run_of_somebody_else_keeps_the_controller_from_starting_one() -> None:
    story = Story(line()).with_stable().tell("run.started", run="x", reason="asked")
    story.tell("feedback.received", labels=10)
    assert story.decided() == ()
    story.tell("run.finished", run="x", outcome="refused")
    assert story.only().kind == "start_run"


def test_no_training_while_a_challenger_is_out_or_nothing_is_in_service() -> None:
    assert Story(line()).with_canary().tell("feedback.received", labels=99).decided() == ()
    assert Story(line()).tell("feedback.received", labels=99).decided() == ()


def test_after_a_refusal_twice_the_evidence_is_needed() -> None:
    story = started(Story(line(labels=10)).with_stable().tell("feedback.received", labels=10))
    story.tell("run.finished", run="r1", outcome="refused", stop=["worse"])
    assert story.tell("feedback.received", labels=19).decided() == ()
    assert story.tell("feedback.received", labels=1).only().kind == "start_run"


def test_labels_that_come_during_a_run_count_for_the_next_one() -> None:
    story = started(Story(line(labels=10)).with_stable().tell("feedback.received", labels=10))
    story.tell("feedback.received", labels=20)
    story.tell("run.finished", run="r1", outcome="refused")
    assert story.only().kind == "start_run"


def test_a_promotion_restores_the_usual_patience() -> None:
    story = Story(line()).with_canary().tell("deploy", action="withdraw", package="b")
    assert story.state.refusals == 1
    story.finished("c").tell("deploy", action="canary", package="c", share=0.1)
    story.tell("deploy", action="promote", package="c")
    assert (story.state.refusals, story.state.patience) == (0, 1)


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_broken_off_run_is_repeated_on_the_same_evidence_after_a_wait(outcome: str) -> None:
    story = started(Story(line(labels=10)).with_stable().tell("feedback.received", labels=10))
    story.tell("run.finished", run="r1", outcome=outcome)
    assert story.decided() == ()
    story.now_ms += BACK_OFF_MS
    assert story.only().kind == "start_run"


def test_after_three_failures_the_evidence_is_spent() -> None:
    story = Story(line(labels=10)).with_stable().tell("feedback.received", labels=10)
    for failure in range(3):
        story.now_ms += BACK_OFF_MS * 2**failure
        started(story).tell("run.finished", run="r1", outcome="failed")
    story.now_ms += 100 * BACK_OFF_MS
    assert story.decided() == ()
    assert story.state.refusals == 1


def test_a_failure_of_somebody_elses_run_costs_nothing() -> None:
    story = Story(line()).with_stable().tell("run.started", run="x", reason="asked")
    story.tell("run.finished", run="x", outcome="failed")
    assert (story.state.failures, story.state.refusals) == (0, 0)


def test_a_request_nobody_takes_is_repeated_and_then_given_up() -> None:
    story = Story(line(labels=10)).with_stable().tell("feedback.received", labels=10)
    keys = []
    for attempt in (1, 2, 3):
        action = story.only()
        assert (action.kind, action.attempt) == ("start_run", attempt)
        keys.append(action.key)
        story.tell(
            "action",
            action="start_run",
            key=action.key,
            attempt=attempt,
            epoch=action.epoch,
            reason=action.reason,
            dataset="d2",
        )
        assert story.decided() == ()
        story.now_ms += START_GRACE_MS
    assert len(set(keys)) == 3
    action = story.only()
    assert action.kind == "give_up"
    story.note(action)
    assert story.decided() == ()
    assert (story.state.request, story.state.refusals) == (None, 1)


def test_a_run_without_a_sign_of_life_is_given_up() -> None:
    story = started(Story(line(labels=10)).with_stable().tell("feedback.received", labels=10))
    story.now_ms += LOST_AFTER_MS
    story.tell("stage.finished", run="r1", stage="prepare")
    story.now_ms += LOST_AFTER_MS
    assert story.decided() == ()
    story.now_ms += 4 * 60 * SECOND
    action = story.only()
    assert (action.kind, action.run) == ("give_up", "r1")


def test_a_clock_that_jumps_back_blocks_nothing() -> None:
    story = started(Story(line(labels=10)).with_stable().tell("feedback.received", labels=10))
    story.now_ms -= 10**9
    assert story.only().kind == "give_up"


def test_a_schedule_waits_again_after_runs_that_failed_for_good() -> None:
    story = Story(line(days=1)).with_stable().finished("a")
    story.now_ms += 2 * DAY_MS
    for failure in range(3):
        story.now_ms += BACK_OFF_MS * 2**failure
        started(story).tell("run.finished", run="r1", outcome="failed")
    story.now_ms += DAY_MS // 2
    assert story.decided() == ()
    story.now_ms += DAY_MS
    assert story.only().kind == "start_run"


def test_a_schedule_waits_again_when_nobody_takes_the_request() -> None:
    story = Story(line(days=1)).with_stable().finished("a")
    story.now_ms += 2 * DAY_MS
    for _ in range(3):
        action = story.only()
        body = {"attempt": action.attempt, "epoch": action.epoch, "reason": action.reason}
        story.tell("action", action="start_run", key=action.key, **body)
        story.now_ms += START_GRACE_MS
    story.note(story.only())
    assert story.decided() == ()


def test_a_line_that_observes_would_follow_the_schedule_once_a_period() -> None:
    story = Story(line("observe", days=1)).with_stable().finished("a")
    story.now_ms += 2 * DAY_MS
    action = story.only()
    story.tell("action", action="start_run", key=action.key, attempt=1, would=True)
    assert story.decided() == ()
