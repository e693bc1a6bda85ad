"""Injected faults do what their names say; episodes are judged as the definition says."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.core.task import Samples
from genba.core.values import Signature, Tensor
from genba.edge.images import encode_png
from genba.edge.safety.plan import Answers, Channel, Fallback, Picture, SafetyPlan, Timing
from genba.stages import assurance_faults as faults
from genba.stages.assurance_clean import abstention, clean_images
from genba.stages.assurance_episodes import Episode, Trial, beat_ms
from genba.stages.assurance_images import PIXEL_FAULTS, cut, half_width, read
from genba.stages.assurance_limits import KNOBS
from genba.stages.assurance_matrix import Bad, image_cells, judged
from genba.stages.assurance_pictures import Pictures, image_sizes
from genba.stages.assurance_rows import Decision, decision_of, in_words, sensors_of
from genba.stages.assurance_tables import gone_bad, late, silent
from tests.unit.safety_plan import ENTITY, WINDOW, plan, rule
from tests.unit.test_safety_assure import line_with

ONSET, LENGTH = 12, 30
ALARM = Decision(by="alarm", name="alarm")


def place(sensor: str = "flow") -> faults.Place:
    return faults.Place(
        sensors=("flow", "power"),
        sensor=sensor,
        onset=ONSET,
        spread=np.array([2.0, 5.0]),
        chance=np.random.default_rng(3),
    )


def columns() -> dict[str, Any]:
    rows = np.arange(LENGTH, dtype=np.float64)
    return {"flow": rows.copy(), "power": 100 + rows}


@pytest.mark.parametrize("name", ["missing", "spike", "stuck", "bias", "lag"])
def test_a_fault_of_one_sensor_begins_at_its_onset_and_leaves_the_others_alone(name: str) -> None:
    change: Any = getattr(faults, name)
    clean, bad, again = columns(), columns(), columns()
    change(bad, place())
    change(again, place())
    np.testing.assert_array_equal(bad["flow"], again["flow"])  # the same seed, the same fault
    np.testing.assert_array_equal(bad["power"], clean["power"])
    np.testing.assert_array_equal(bad["flow"][:ONSET], clean["flow"][:ONSET])
    away = bad["flow"][ONSET:] - clean["flow"][ONSET:]
    if name == "missing":
        assert np.isnan(away).all()
    elif name == "spike":
        assert np.count_nonzero(away) == 1
        assert 8.0 <= abs(away[0]) <= 20.0  # of spreads of 2
    elif name == "stuck":
        assert len(set(bad["flow"][ONSET:])) == 1
    elif name == "bias":
        assert np.ptp(away) < 1e-9
        assert 2.0 <= abs(away[0]) <= 6.0
    else:
        assert len(set(away)) == 1
        assert -12 <= away[0] <= -3


def test_two_sensors_exchange_their_readings() -> None:
    bad, clean = columns(), columns()
    faults.swapped(bad, place(""))
    np.testing.assert_array_equal(bad["flow"][ONSET:], clean["power"][ONSET:])
    np.testing.assert_array_equal(bad["power"][ONSET:], clean["flow"][ONSET:])
    np.testing.assert_array_equal(bad["flow"][:ONSET], clean["flow"][:ONSET])


def episode(flow: Any, **more: Any) -> Episode:
    """Readings a second apart; the model alarms where flow is above 50."""
    values = np.asarray(flow, dtype=np.float32)
    count = len(values)
    window = np.zeros((count, 3, 2), dtype=np.float32)
    window[:, -1, 0] = values
    window[:, -1, 1] = 30 + np.arange(count) / 100
    time = 1_700_000_000_000 + 1_000 * np.arange(count, dtype=np.int64)
    outputs = {"score": values / 50, "alarm": values > 50}
    given: dict[str, Any] = {
        "tensors": {"window": window, "entity": np.zeros(count, dtype=np.int64)},
        "outputs": outputs,
        "clean": {"score": values * 0, "alarm": np.zeros(count, dtype=np.bool_)},
        "time_ms": time,
        "now_ms": time,
        "entity": "",
        "onset": 2,
    }
    return Episode(**{**given, **more})


def trial(**more: Any) -> Trial:
    return Trial(plan(**more), ALARM)


def test_a_wrong_decision_that_nothing_notices_fails_with_and_without() -> None:
    found = trial().run(episode([40, 41, 42, 60, 44, 45, 46]))
    assert (found.failed, found.failed_without) == (True, True)
    assert (found.missed, found.raised) == (False, True)
    assert found.noticed_after is None


def test_it_is_no_failure_where_a_layer_trips_soon_enough() -> None:
    soon = trial().run(episode([40, 41, 60, 43, 200, 45, 46]))
    assert (soon.failed, soon.failed_without, soon.noticed_after) == (False, True, 2)
    assert soon.layers == ("range",)
    late_ = trial().run(episode([40, 41, 60, 43, 44, 45, 46, 47, 200]))
    assert (late_.failed, late_.noticed_after) == (True, 6)


def test_a_trip_that_is_there_without_the_fault_notices_nothing() -> None:
    usual = [frozenset({"range:flow"})] * 7
    found = trial().run(episode([40, 41, 60, 43, 200, 45, 46], usual=usual))
    assert (found.failed, found.noticed_after, found.layers) == (True, None, ())


def test_right_decisions_never_fail() -> None:
    found = trial().run(episode([40, 41, 42, 43, 44]))
    assert (found.failed, found.failed_without, found.held) == (False, False, 0)


def test_what_does_not_arrive_leaves_the_last_decision_standing() -> None:
    flow = [40, 60, 42, 43, 44, 45, 46, 47]
    clean = {"alarm": np.array(flow) > 50, "score": np.zeros(8)}
    found = trial().run(silent(episode(flow, clean=clean)))
    assert (found.failed_without, found.failed, found.layers) == (True, False, ("time",))


def test_late_readings_carry_their_own_time() -> None:
    made = late(episode(np.arange(30) + 40.0, onset=15), np.random.default_rng(0))
    assert (made.now_ms[15:] - made.time_ms[15:]).min() >= 3_000
    assert trial().run(made).layers == ("time",)


def test_a_model_goes_bad_at_the_onset_and_known_cases_say_so() -> None:
    one = episode([40.0 + i for i in range(9)])
    bad = gone_bad(one, {"score": np.full(9, 9.0), "alarm": np.ones(9, np.bool_)}, ("bad",))
    checked = Answers(alarm="alarm", score="score", check_every=2)
    found = trial(answers=checked).run(bad)
    assert (found.failed_without, found.failed, found.layers) == (True, False, ("model",))
    assert trial().run(bad).failed  # without known cases nobody would notice


def test_a_restart_begins_with_an_empty_memory() -> None:
    flow = [42.0, 42.0, 42.0, 42.0, 42.0, 42.0]
    whole, cut = (trial().run(episode(flow, onset=3, restart=r)) for r in (False, True))
    assert (whole.noticed_after, cut.noticed_after) == (0, None)


def test_a_rule_that_stands_in_is_counted_and_so_is_each_time_it_is_wrong() -> None:
    made = plan(fallback=Fallback(chain=("rule", "abstain"), rules={"flow": rule("flow")}))
    one = episode([40, 41, np.nan, np.nan, 44])
    power = one.tensors["window"][:, -1, 1]
    power[3] = 60.0  # the rule says alarm, the clean model did not
    found = Trial(made, ALARM).run(one)
    assert (found.by_rule, found.by_rule_wrong, found.failed) == (2, 1, False)


def test_decisions_follow_from_the_roles_of_the_outputs() -> None:
    def tensor(role: str) -> Tensor:
        return Tensor(name=role, datatype="FP32", shape=(-1,), role=role)

    def by(*roles: str) -> Decision:
        return decision_of(Signature(inputs=(), outputs=tuple(tensor(r) for r in roles)))

    assert [by("expected", "alarm").by, by("class").by, by("look").by] == ["alarm", "class", ""]
    forecast = by("expected", "low", "high")
    clean = {n: np.array([[v]] * 3) for n, v in (("expected", 5.0), ("low", 4.0), ("high", 6.0))}
    other = {"expected": np.array([[5.9], [6.1], [np.nan]])}
    assert forecast.differs(clean, other).tolist() == [False, True, True]
    assert by("expected").differs(clean, other).tolist() == [True, True, True]
    assert by("look").differs({"look": np.zeros(2)}, {}).tolist() == [False, False]
    assert not forecast.raised(clean).any()
    assert in_words(forecast) != in_words(ALARM)
    assert sensors_of(Signature(inputs=(WINDOW, ENTITY), outputs=()), ("a", "b")).first == 4
    assert sensors_of(Signature(inputs=(ENTITY,), outputs=()), ("a", "b")).names == ()


def test_abstaining_from_the_unsurest_lowers_the_risk() -> None:
    task: Any = SimpleNamespace(uncertainty=lambda outputs, settings: outputs["unsure"])
    alarm = np.array([True] * 50 + [False] * 50)
    label = np.where(np.arange(100) < 40, 1.0, 0.0)
    outputs = {"alarm": alarm, "unsure": np.where(alarm != (label > 0), 0.9, 0.1)}
    curve = abstention(task, outputs, label, ALARM, {})
    assert curve is not None
    risks = [point["risk"] for point in curve["points"]]
    assert risks[0] == 0.1
    assert risks[-1] == 0.0
    assert abstention(task, outputs, np.full(100, np.nan), ALARM, {}) is None
    assert abstention(task, outputs, label, Decision(by="expected"), {}) is None


SIZE = 32


def picture(i: int) -> bytes:
    chance = np.random.default_rng(i)
    base = chance.integers(90, 150, (48, 64, 3)).astype(np.uint8)
    if i % 2:
        base[10:20, 10:20] = 255
    return encode_png(base)


class Camera:
    """A dataset of images and a model that alarms where much is white."""

    modality = "image"
    files = [picture(i) for i in range(12)]

    def count(self, split: str) -> int:
        return len(self.files)

    def chunks(self, split: str, **more: Any) -> Any:
        image = np.empty(len(self.files), dtype=object)
        image[:] = self.files
        rows = np.arange(len(self.files))
        yield {"image": image, "row": rows, "entity": rows * 0, "time": rows, "label": rows % 2.0}

    @staticmethod
    def samples(chunk: Any, settings: Any) -> Samples:
        count = len(chunk["row"])
        pixels = np.zeros((count, SIZE, SIZE, 3), dtype=np.uint8)
        empty = np.zeros(count)
        tensors: Any = {"image": pixels, "threshold": np.ones(count, dtype=np.float32)}
        return Samples(
            tensors=tensors, entity=empty, time=empty, row=empty, label=empty, truth=empty
        )

    @staticmethod
    def predict(tensors: Any) -> dict[str, Any]:
        image = np.asarray(tensors["image"], dtype=np.float64)
        white = (image > 200).mean(axis=(1, 2, 3))
        look = image.mean(axis=(1, 2, 3))[:, None]
        return {"alarm": white > 0.03, "score": white / 0.03, "look": look, "map": image}


def camera_plan() -> SafetyPlan:
    image = Tensor(name="image", datatype="UINT8", shape=(-1, SIZE, SIZE, 3), role="image")
    return SafetyPlan(
        line="camera",
        package="",
        inputs=(image,),
        timing=Timing(ordered=False, stale_ms=2_500, react=6),
        answers=Answers(alarm="alarm", score="score", check_every=6),
        picture=Picture(tensor="image", sizes=((64, 48),)),
    )


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    parameter = Tensor(name="threshold", datatype="FP32", shape=(-1,), role="parameter")
    signature = Signature(inputs=(*camera_plan().inputs, parameter), outputs=())
    manifest: Any = SimpleNamespace(signature=signature, settings={})
    camera: Any = Camera()
    made = Pictures(camera, Camera.predict, manifest, camera_plan())
    made.choose(camera, 8)
    return made


def test_the_matrix_of_a_camera_has_every_fault_of_images(pictures: Pictures) -> None:
    dim: Any = SimpleNamespace(predict=lambda t: {n: ~o if n == "alarm" else o for n, o in Camera.predict(t).items()})  # fmt: skip  # noqa: E501
    broken = {name: ("bad",) for name in ("garbled", "constant", "inverted")}
    cells = image_cells(pictures, Bad(predictor=dim, broken=broken, roles={"score": "score"}))
    told: list[str] = []
    check = Trial(camera_plan(), ALARM)
    found = judged(cells, check, line_with(), lambda text, done, total: told.append(text))
    by_name = {row["cell"]: row for row in found}
    assert {*PIXEL_FAULTS, "cut_file", "wrong_size", "stale_frame", "delay", "drop"} <= set(by_name)
    assert len(told) == len(cells)
    for name in ("cut_file", "wrong_size", "stale_frame", "delay", "drop", "bad_model:inverted"):
        assert by_name[name]["failed"] == 0, name
        assert by_name[name]["noticed"] == 1.0, name
    assert by_name["over_exposed"]["failed_without"] > 0
    assert by_name["over_exposed"]["failed"] > 0  # this plan has no monitor that could notice
    assert not by_name["over_exposed"]["holds"]
    clean = clean_images(check, pictures)
    assert (clean.readings, clean.withheld) == (8, 0)
    without = image_cells(pictures, Bad(predictor=None, broken={}, roles={}))
    assert "bad_model:garbled" not in {cell.name for cell in without}


@pytest.mark.parametrize("name", list(PIXEL_FAULTS))
def test_a_pixel_fault_keeps_the_form_and_changes_the_picture(name: str) -> None:
    image: Any = read(picture(1), SIZE).pixels
    one, two = (PIXEL_FAULTS[name](image, np.random.default_rng(5)) for _ in range(2))
    assert one.shape == image.shape
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    assert (one != image).mean() > 0.1
    if name == "black":
        assert one.max() < 4
    if name == "blurred":
        assert one.std() < image.std()


def test_files_that_are_cut_or_narrow_are_seen_as_such() -> None:
    bad = read(cut(picture(0), np.random.default_rng(0)), SIZE)
    assert bad.pixels is None
    assert bad.fault.startswith("G2")
    assert read(half_width(picture(0)), SIZE).size == (32, 48)
    camera: Any = Camera()
    assert image_sizes(camera, 5) == ((64, 48),)
    assert image_sizes(camera, 10_000) == ((64, 48),)


def test_a_replay_goes_at_the_pace_the_line_states() -> None:
    assert beat_ms(plan()) == 1_000
    assert beat_ms(plan(timing=Timing(ordered=False, stale_ms=500))) == 200
    assert beat_ms(plan(timing=Timing(ordered=False))) == 1_000
    assert KNOBS["critical"] < KNOBS["major"] < KNOBS["minor"]
    assert Channel(name="a", tensor="w", index=0, low=0, high=1, declared=False).rest is None
