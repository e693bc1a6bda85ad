"""Gates: what stops a line, hardest miss first."""

import json

from genba.core.codec import encode
from genba.core.line import Limit
from genba.core.values import Measure
from genba.stages.gates import in_words, judge


class TestGates:
    def test_all_passed(self) -> None:
        verdict = judge({"r2": Limit(min=0.9)}, {"r2": Measure(value=0.9)})
        assert verdict.passed
        assert verdict.reasons == ()
        assert verdict.gates[0].limit == "at least 0.9"

    def test_no_gates_is_passed(self) -> None:
        assert judge({}, {}).passed

    def test_the_hardest_miss_comes_first_and_the_unknown_before_it(self) -> None:
        gates = {
            "fine": Limit(max=1),
            "near": Limit(min=1.0),
            "far": Limit(max=1.0),
            "unknown": Limit(max=1),
            "broken": Limit(max=1),
        }
        measures = {
            "fine": Measure(value=0.5),
            "near": Measure(value=0.9),
            "far": Measure(value=3.0),
            "broken": Measure(value=float("nan")),
        }
        verdict = judge(gates, measures)
        assert not verdict.passed
        assert [g.name for g in verdict.gates] == ["unknown", "broken", "far", "near", "fine"]
        assert len(verdict.reasons) == 4
        json.dumps(encode(verdict), allow_nan=False)

    def test_limits_in_words(self) -> None:
        assert in_words(Limit(max=0.5)) == "at most 0.5"
        assert in_words(Limit(min=0.2, max=0.4)) == "between 0.2 and 0.4"
        assert in_words(Limit()) == "anything"
