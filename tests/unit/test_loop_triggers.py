"""Each trigger: silent below its threshold, a sentence with numbers above it."""

from typing import Any

import pytest

from genba.core.resolve import names, resolve
from genba.core.values import Event
from genba.loop.economics import HORIZON_DAYS, per_thousand, rate_per_day, retrain_case
from genba.loop.evidence import Evidence, Streak
from genba.loop.state import LineState, advance
from genba.loop.traffic import Batch, Traffic
from genba.loop.triggers.cost import CostTrigger
from genba.loop.triggers.drift import WINDOWS, DriftTrigger
from genba.loop.triggers.labels import LabelTrigger
from genba.loop.triggers.quality import QualityTrigger
from genba.loop.triggers.schedule import DAY_MS, ScheduleTrigger


def state(refusals: int = 0, **evidence: Any) -> LineState:
    return LineState(line="pump", refusals=refusals, evidence=Evidence(**evidence))


@pytest.mark.parametrize("name", sorted(names("trigger")))
def test_every_trigger_of_the_catalog_is_silent_about_an_empty_line(name: str) -> None:
    assert resolve("trigger", name)().reason(LineState(line="pump"), 0.5, 0) is None


def test_labels() -> None:
    trigger = LabelTrigger()
    assert trigger.reason(state(labels=199), 200, 0) is None
    assert trigger.reason(state(labels=200), 200, 0) == (
        "200 labels since the last training, 200 asked for"
    )
    assert trigger.reason(state(labels=399, refusals=1), 200, 0) is None
    assert trigger.reason(state(labels=400, refusals=1), 200, 0)


def test_a_threshold_of_no_labels_still_needs_one() -> None:
    assert LabelTrigger().reason(state(labels=0), 0, 0) is None


def test_drift_needs_a_streak_above_threshold_and_chance() -> None:
    trigger = DriftTrigger()

    def seen(windows: int, statistic: float, null_q: float, refusals: int = 0) -> str | None:
        streak = Streak(windows=windows, statistic=statistic, null_q=null_q)
        return trigger.reason(state(refusals, drift={"Ot_avg": streak}), 0.2, 0)

    assert seen(WINDOWS - 1, 9.0, 0.1) is None
    assert seen(WINDOWS, 0.19, 0.1) is None
    assert seen(WINDOWS, 0.25, 0.3) is None
    assert seen(WINDOWS, 0.25, 0.1, refusals=1) is None
    reason = seen(WINDOWS, 0.25, 0.1)
    assert reason == (
        "Ot_avg has PSI 0.250, above 0.2 and above the 0.100 that chance explains, "
        "in 2 windows in a row"
    )


def watched(*drifted: bool, kind: str = "input") -> LineState:
    made = LineState(line="pump")
    bodies: list[tuple[str, dict[str, Any]]] = [("deploy", {"action": "deploy", "package": "a"})]
    for number, found in enumerate(drifted):
        finding = {"name": "x", "kind": kind, "statistic": 0.5, "null_q": 0.1, "drifted": found}
        bodies.append(("watch", {"package": "a", "window": number, "findings": [finding]}))
    for seq, (kind_of, body) in enumerate(bodies, start=1):
        event = Event(
            seq=seq,
            time_ms=seq,
            kind=kind_of,
            line="pump",
            subject="a",
            body=body,
            previous="",
            digest="",
        )
        made = advance(made, [event])
    return made


def test_only_windows_in_a_row_add_up() -> None:
    trigger = DriftTrigger()
    assert trigger.reason(watched(True, False, True, False, True), 0.2, 0) is None
    assert trigger.reason(watched(False, True, True), 0.2, 0)
    assert trigger.reason(watched(True, True, True, kind="latency"), 0.2, 0) is None


def test_windows_of_other_packages_are_not_ours() -> None:
    made = watched(True, True)
    event = Event(
        seq=9,
        time_ms=9,
        kind="watch",
        line="pump",
        subject="b",
        body={"package": "b", "findings": []},
        previous="",
        digest="",
    )
    assert advance(made, [event]).evidence.drift == made.evidence.drift


def test_schedule() -> None:
    trigger = ScheduleTrigger()
    made = LineState(line="pump", trained_ms=DAY_MS)
    assert trigger.reason(made, 7, 7 * DAY_MS) is None
    assert trigger.reason(made, 7, 8 * DAY_MS) == "the last training was 7 days ago, 7 asked for"
    assert trigger.reason(LineState(line="pump"), 7, 99 * DAY_MS) is None


def test_quality_needs_enough_judged_alarms_and_no_doubt() -> None:
    trigger = QualityTrigger()
    assert trigger.reason(state(confirmed=0, false_alarms=19), 0.8, 0) is None
    assert trigger.reason(state(confirmed=15, false_alarms=5), 0.8, 0) is None
    reason = trigger.reason(state(confirmed=5, false_alarms=15), 0.8, 0)
    assert reason is not None
    assert "precision 0.25" in reason
    assert trigger.reason(state(refusals=1, confirmed=5, false_alarms=15), 0.8, 0) is None


def test_quality_counts_other_mistakes_too() -> None:
    trigger = QualityTrigger()
    assert trigger.reason(state(confirmed=10, wrong=9), 0.9, 0) is None
    reason = trigger.reason(state(confirmed=30, wrong=30), 0.9, 0)
    assert reason is not None
    assert reason.startswith("30 of 60 judged answers were right: share 0.50")
    assert trigger.reason(state(confirmed=59, wrong=1, missed=500), 0.9, 0) is None


def test_what_judged_a_model_is_counted_and_forgotten_with_it() -> None:
    def event(seq: int, kind: str, **body: Any) -> Event:
        return Event(
            seq=seq,
            time_ms=seq,
            kind=kind,
            line="pump",
            subject="",
            body=body,
            previous="",
            digest="",
        )

    told = [
        event(1, "deploy", action="deploy", package="a"),
        event(2, "feedback.received", labels=9, confirmed=3, false_alarms=2, missed=1, wrong=3),
        event(3, "feedback.received", labels=1, confirmed=1),  # of an earlier Genba
    ]
    judged = advance(LineState(line="pump"), told)
    assert (judged.evidence.confirmed, judged.evidence.wrong) == (4, 3)
    assert judged.evidence.plus(judged.evidence).wrong == 6
    after = advance(judged, [event(4, "deploy", action="deploy", package="b")]).evidence
    assert (after.labels, after.confirmed, after.false_alarms, after.missed, after.wrong) == (
        *(10, 0, 0),
        *(0, 0),
    )


def serving(cpu_seconds: float, n: int, days: float, spent: tuple[float, float]) -> LineState:
    batch = Batch(n=n, cpu_seconds=cpu_seconds)
    return LineState(
        line="pump",
        spent=spent,
        stable=Traffic().add(batch, 1, int(days * DAY_MS) + 1, 500),
        evidence=Evidence(predictions=n, cpu_seconds=cpu_seconds),
    )


def test_the_cost_of_a_thousand_predictions_is_modelled_and_linear() -> None:
    one, two = per_thousand(10.0, 10_000), per_thousand(20.0, 10_000)
    assert one is not None
    assert two is not None
    assert two.cost_usd.value == pytest.approx(2 * one.cost_usd.value)
    assert one.cost_usd.method == one.joules.method == "modelled"
    assert per_thousand(10.0, 999) is None


def test_a_retrain_pays_when_its_savings_in_the_horizon_exceed_its_cost() -> None:
    cheap = retrain_case(serving(1e5, 10**6, 1, (60.0, 60.0)), 0.0)
    dear = retrain_case(serving(0.001, 10**4, 1, (3600.0, 3600.0)), 0.0)
    assert cheap is not None
    assert dear is not None
    assert cheap.pays
    assert not dear.pays
    assert cheap.predictions_per_day == pytest.approx(10**6)
    now = per_thousand(1e5, 10**6)
    assert now is not None
    assert cheap.saving_usd == pytest.approx(now.cost_usd.value * 1_000 * HORIZON_DAYS)
    assert cheap.sentence.endswith("predictions a day (modelled)")


def test_without_traffic_there_is_no_case() -> None:
    assert retrain_case(LineState(line="pump"), 0.0) is None
    assert rate_per_day(Traffic()) is None


def test_cost() -> None:
    trigger = CostTrigger()
    made = serving(1e5, 10**6, 1, (60.0, 60.0))
    cost = per_thousand(1e5, 10**6)
    assert cost is not None
    usd = cost.cost_usd.value
    assert trigger.reason(made, usd * 1.01, 0) is None
    reason = trigger.reason(made, usd * 0.5, 0)
    assert reason is not None
    assert reason.startswith(f"a thousand predictions cost {usd:.3g} USD")
    unpaid = serving(0.001, 10**4, 1, (3600.0, 3600.0))
    assert trigger.reason(unpaid, 0.0, 0) is None


def test_evidence_adds_up() -> None:
    early = Evidence(
        labels=1, predictions=10, drift={"x": Streak(windows=1, statistic=1, null_q=0)}
    )
    late = Evidence(labels=2, false_alarms=3)
    assert early.plus(late) == Evidence(labels=3, predictions=10, false_alarms=3, drift=early.drift)
