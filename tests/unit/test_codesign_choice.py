"""Constraints, the front, the choice, the picture and the gate before a measurement."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.codesign import constraints, front, plot, quiet
from genba.codesign.constraints import Bound
from genba.codesign.values import Point, Trial
from genba.core.line import Limit, Limits
from genba.core.problem import Problem
from genba.core.values import Measure
from tests.unit.codesign_world import ALIKE, UNLIKE, measures

MOST = Bound(name="latency_ms_p99", side="max", value=3.0, path="target.limits.latency_ms_p99")
LEAST = Bound(name="auroc", side="min", value=0.9, path="gates.auroc.min")


def trial(name: str, cpu: float, latency: float = 1.0, memory: float = 100.0) -> Trial:
    point = Point(engine=name, settings={"precision": "float32"})
    made = Trial(point=point, stand="measured", parity=ALIKE)
    made.measures = measures(cpu, latency, memory)
    return made


class TestConstraints:
    def test_limits_and_gates_become_bounds_with_the_path_to_type(self) -> None:
        limits = constraints.of_limits(Limits(latency_ms_p99=3, cost_usd_per_1k=0.1))
        gates = constraints.of_gates({"auroc": Limit(min=0.9), "f1": Limit(min=0.1, max=0.9)})
        assert [b.path for b in limits] == [
            "target.limits.latency_ms_p99",
            "target.limits.cost_usd_per_1k",
        ]
        assert [(b.path, b.value) for b in gates] == [
            ("gates.auroc.min", 0.9),
            ("gates.f1.min", 0.1),
            ("gates.f1.max", 0.9),
        ]

    def test_what_is_not_known_or_not_a_number_holds_nothing(self) -> None:
        assert not MOST.holds(None)
        assert not MOST.holds(Measure(value=math.nan))
        assert MOST.over(Measure(value=math.nan)) == math.inf
        assert "could not be measured" in constraints.sentence(MOST, None, "pi")

    def test_an_interval_across_the_bound_is_not_sure(self) -> None:
        assert MOST.sure(Measure(value=2.0, low=1.0, high=2.5))
        assert not MOST.sure(Measure(value=2.0, low=1.0, high=3.5))
        assert not MOST.sure(Measure(value=2.0))
        assert LEAST.sure(Measure(value=0.8, low=0.7, high=0.85))

    def test_a_limit_of_zero_is_exceeded_by_anything(self) -> None:
        none = Bound(name="overkill", side="max", value=0.0, path="gates.overkill.max")
        assert none.holds(Measure(value=0.0))
        assert none.over(Measure(value=0.01)) > 1.0

    def test_the_nearest_is_the_one_for_which_least_has_to_give(self) -> None:
        slow, large = trial("slow", 1.0, 25.0, 50.0), trial("large", 1.0, 4.0, 300.0)
        wrong = trial("wrong", 0.1, 0.1, 1.0)
        wrong.parity = UNLIKE
        bounds = constraints.of_limits(Limits(latency_ms_p99=3, memory_mib=100))
        near = constraints.nearest([slow, large, wrong], bounds, "pi", {})
        assert near is not None
        assert near.trial is large
        assert near.misses[0].startswith("memory_mib is 300 MiB; pi allows 100 MiB (200 %")
        assert near.relax == (
            "--set target.limits.memory_mib=330",
            "--set target.limits.latency_ms_p99=5.3",
        )

    def test_nothing_comes_near_when_nothing_was_measured_or_all_answer_wrongly(self) -> None:
        wrong = trial("wrong", 0.1)
        wrong.parity = UNLIKE
        assert constraints.nearest([], [MOST], "pi", {}) is None
        assert constraints.nearest([wrong], [MOST], "pi", {}) is None

    def test_a_gate_is_relaxed_to_a_little_below_what_the_model_reaches(self) -> None:
        near = constraints.nearest([trial("a", 1.0)], [LEAST], "pi", {"auroc": Measure(value=0.85)})
        assert near is not None
        assert near.misses == ("auroc is 0.85; at least 0.9 is asked for.",)
        assert near.relax == ("--set gates.auroc.min=0.845",)

    @given(st.floats(1e-6, 1e9))
    def test_a_suggested_limit_is_never_below_the_value(self, value: float) -> None:
        text = constraints.rounded_up(value)
        assert float(text) >= value * (1 - 1e-9)
        assert float(text) <= value * 1.11

    def test_no_limit_is_suggested_for_what_is_not_a_number(self) -> None:
        assert constraints.rounded_up(math.nan) == "…"
        assert constraints._rounded_down(math.inf) == "…"
        assert constraints._rounded_down(0.0) == "0"

    def test_what_is_held_says_how_surely(self) -> None:
        (said,) = constraints.held([MOST], {"latency_ms_p99": Measure(value=2.0)})
        assert (said["holds"], said["sure"]) == (True, False)


class TestChoice:
    def test_ties_in_cpu_time_are_decided_by_latency_and_then_by_order(self) -> None:
        cheap, dear = trial("a", 1.0, 5.0), trial("b", 2.0, 1.0)
        assert front.preferred([dear, cheap], "cpu") is cheap
        slow, fast = trial("a", 1.0, 5.0), trial("b", 1.01, 1.0)
        assert front.preferred([slow, fast], "cpu") is fast
        first, second = trial("a", 1.0, 1.0), trial("b", 1.0, 1.0)
        assert front.preferred([first, second], "cpu") is first

    @pytest.mark.parametrize(
        ("prefer", "name"), [("latency", "fast"), ("size", "small"), ("cpu", "cheap")]
    )
    def test_another_preference_is_another_choice(self, prefer: str, name: str) -> None:
        offered = [
            trial("fast", 3.0, 1.0, 300.0),
            trial("small", 4.0, 9.0, 30.0),
            trial("cheap", 1.0, 5.0, 200.0),
        ]
        assert front.preferred(offered, prefer).point.engine == name

    def test_quality_is_how_many_decisions_are_those_of_the_reference(self) -> None:
        alike, unlike = trial("alike", 9.0), trial("unlike", 1.0)
        unlike.parity = UNLIKE
        assert front.preferred([unlike, alike], "quality") is alike

    def test_what_nobody_measured_decides_nothing(self) -> None:
        one, other = trial("a", 1.0), trial("b", 1.0)
        for each in (one, other):
            each.measures = {"cpu_ms": Measure(value=1.0)}
        assert front.preferred([one, other], "energy") is one

    @given(
        st.lists(
            st.tuples(st.floats(0.1, 100), st.floats(0.1, 100), st.floats(1, 500)),
            min_size=1,
            max_size=8,
        )
    )
    def test_nobody_on_the_front_is_dominated_and_the_cheapest_is_near_it(
        self, numbers: list[tuple[float, float, float]]
    ) -> None:
        offered = [trial(f"e{i}", *n) for i, n in enumerate(numbers)]
        best = front.front(offered)
        assert best == sorted(best, key=lambda t: t.measures["cpu_ms"].value)
        for one, other in pairwise(best):
            assert not front.dominates(one, other)
            assert not front.dominates(other, one)

    def test_answers_that_are_not_close_enough_are_no_part_of_the_front(self) -> None:
        wrong = trial("wrong", 0.1, 0.1, 1.0)
        wrong.parity = UNLIKE
        right = trial("right", 1.0)
        assert front.front([wrong, right]) == [right]

    def test_ranked_holds_everyone_once(self) -> None:
        offered = [trial("a", 3.0), trial("b", 1.0), trial("c", 2.0)]
        assert [t.point.engine for t in front.ranked(offered, "cpu")] == ["b", "c", "a"]


class TestPicture:
    DOTS = (
        plot.Dot(x=1.0, y=2.0, mark="chosen", label="a <b>"),
        plot.Dot(x=4.0, y=1.0, mark="front", label="c"),
        plot.Dot(x=5.0, y=9.0, mark="refused", label="d"),
    )
    AXES = plot.Axes(x="ms", y="MiB")

    def test_the_file_is_xml_with_a_circle_for_each_point_and_nothing_from_elsewhere(self) -> None:
        text = plot.as_svg(self.DOTS, self.AXES, "a < b")
        root = Xml.fromstring(text)
        circles = [e for e in root.iter() if e.tag.endswith("circle")]
        assert sum(1 for circle in circles if len(circle)) == 3  # with their words; the legend
        assert sum(1 for circle in circles if not len(circle)) == 4  # has one for each mark
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "<script" not in text

    def test_no_points_no_lines(self) -> None:
        assert plot.in_characters([], self.AXES) == []
        assert "circle" not in plot.as_svg([], self.AXES, "t")

    def test_equal_and_negative_values_have_a_place(self) -> None:
        dots = [plot.Dot(x=0.0, y=-1.0, mark="front", label="a")] * 2
        lines = plot.in_characters(dots, self.AXES, width=10, height=3)
        assert any("○" in line for line in lines)

    def test_what_is_chosen_is_drawn_over_the_rest(self) -> None:
        same = [plot.Dot(x=1, y=1, mark=m, label=m) for m in ("chosen", "refused", "front")]
        lines = plot.in_characters(same, self.AXES, width=10, height=3)
        assert "●" in "".join(lines[:-1])
        assert "×" not in "".join(lines[:-1])


class TestQuiet:
    def test_it_waits_until_others_are_quiet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = iter([1.9, 1.2, 0.1])
        monkeypatch.setattr(quiet, "_PAUSE_S", 0.0)
        load = quiet.wait_for_quiet(60.0, look=lambda: next(seen))
        assert load.quiet
        assert load.sentence == "others kept 0.1 cores busy"

    def test_it_gives_up_and_says_so(self) -> None:
        load = quiet.wait_for_quiet(0.0, look=lambda: 1.5)
        assert not load.quiet
        assert load.sentence == "it never got quiet: others kept 1.5 cores busy"

    def test_our_own_work_is_not_that_of_others(self, tmp_path: Path, monkeypatch: Any) -> None:
        (tmp_path / "proc").mkdir()
        stat = tmp_path / "proc" / "stat"
        stat.write_text("cpu  100 0 0 1000 50 0 0 0 0 0\n")
        assert quiet.busy_with_others(0.01, tmp_path) == 0.0
        own = iter([0.0, 10.0])
        monkeypatch.setattr(quiet, "_own_s", lambda: next(own))
        busy = iter([0.0, 10.0])
        monkeypatch.setattr(quiet, "_busy_s", lambda _: next(busy))
        assert quiet.busy_with_others(0.01) == 0.0

    def test_where_the_system_does_not_say_nobody_is_busy(self, tmp_path: Path) -> None:
        assert quiet.busy_with_others(0.0, tmp_path) == 0.0


def test_a_refused_trial_keeps_what_the_runtime_said() -> None:
    made = trial("a", 1.0)
    made.refuse(Problem("G625", "It crashed.", why="SIGSEGV", tries=["x"]))
    said = made.to_json()
    assert (said["stand"], said["refused"], said["why"]) == ("refused", ["It crashed."], "SIGSEGV")
    assert not made.feasible
