"""The model of cost: a device whose costs are known, measured with noise, must be found again."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genba.codesign.modelled import Model, Seen, back_test, predict, usage_of
from genba.codesign.modelled_fit import Row, fit, uncorrected
from genba.codesign.modelled_points import MOST, path_of, read, remember
from genba.codesign.modelled_terms import TERMS, Usage, terms
from genba.codesign.operations import Amount, Kind, Operation, Operations
from genba.targets.profile import Profile
from tests.unit.modelled_device import PROFILE, rate

CPU = usage_of("onnxruntime", {"precision": "float32", "threads": 1})


def op(kind: Kind, flops: float, moved: float = 0.0, *, integer: bool = False) -> Operation:
    return Operation(
        name=kind,
        operator=kind,
        kind=kind,
        flops=Amount(row=flops),
        bytes=Amount(row=moved),
        integer=integer,
    )


def work(*rows: Operation) -> Operations:
    return Operations(rows=rows, weights_bytes=0)


def expect(profile: Profile, found: Operations, usage: Usage = CPU) -> dict[str, float]:
    return {name: m.value for name, m in predict(profile, found, usage).items()}


class TestRoofline:
    def test_arithmetic_or_memory_whichever_takes_longer(self) -> None:
        call = 0.01  # ms
        assert expect(PROFILE, work(op("conv", 5e9, 1.0)))["cpu_ms"] == pytest.approx(100 + call)
        assert expect(PROFILE, work(op("conv", 1.0, 1e9)))["cpu_ms"] == pytest.approx(100 + call)
        assert expect(PROFILE, work(op("elementwise", 1e9, 1e7)))["cpu_ms"] == pytest.approx(
            1 + call
        )

    def test_a_batch_is_one_call_and_its_rows_share_it(self) -> None:
        usage = replace(CPU, batch=10)
        found = expect(PROFILE, work(op("gemm", 1e8)), usage)
        assert found["latency_ms_p50"] == pytest.approx(10 + 0.01)
        assert found["cpu_ms"] == pytest.approx(found["latency_ms_p50"] / 10)

    def test_threads_shorten_the_wait_and_not_the_work(self) -> None:
        found = expect(PROFILE, work(op("gemm", 1e9)), replace(CPU, threads=2))
        assert found["cpu_ms"] == pytest.approx(10.01)
        assert found["latency_ms_p50"] == pytest.approx(5.01)

    def test_a_measured_rate_of_several_threads_is_believed_more(self) -> None:
        slow = replace(PROFILE, rates=(*PROFILE.rates, rate("gemm", 110.0, threads=2)))
        found = expect(slow, work(op("gemm", 1.1e9)), replace(CPU, threads=2))
        assert found["latency_ms_p50"] == pytest.approx(10.01)

    def test_precision_decides_and_what_is_not_known_is_computed_in_float32(self) -> None:
        integers = expect(PROFILE, work(op("conv", 5e9, integer=True)))
        assert integers["cpu_ms"] == pytest.approx(25.01)
        bfloat = expect(PROFILE, work(op("gemm", 1e9)), replace(CPU, precision="bfloat16"))
        assert bfloat["cpu_ms"] == pytest.approx(10.01)

    def test_a_runtime_that_was_not_probed_is_taken_for_another(self) -> None:
        other = replace(CPU, engine="tensorrt")
        found = expect(PROFILE, work(op("conv", 5e9)), other)
        assert found["cpu_ms"] == pytest.approx(100.01)

    def test_nothing_is_said_where_no_rate_is_known(self) -> None:
        bare = replace(PROFILE, rates=())
        assert expect(bare, work(op("gemm", 1e9))) == {}
        assert expect(PROFILE, work()) != {}  # an empty call is known
        assert expect(replace(PROFILE, rates=PROFILE.rates[:1]), work()) == {}

    def test_the_band_of_the_rates_is_all_there_is_where_nothing_was_measured(self) -> None:
        wide = replace(rate("gemm", 100.0), low=50.0, high=200.0)
        model = Model(replace(PROFILE, rates=(wide, *PROFILE.rates[1:])))
        found = model.predict(work(op("gemm", 1e9)), CPU)["cpu_ms"]
        assert found.method == "modelled"
        assert found.value == pytest.approx(10.01)
        assert found.low == pytest.approx(5.01)
        assert found.high == pytest.approx(20.01)
        assert model.back_test() is None

    def test_trees_are_not_guessed_at_until_some_were_measured(self) -> None:
        trees = work(op("trees", 400.0))
        assert predict(PROFILE, trees, CPU) == {}
        seen = [measured(f"m{n}", work(op("trees", 1e5 * n)), CPU, 2.0 * n) for n in (1, 2, 3)]
        found = predict(PROFILE, work(op("trees", 2e5)), CPU, seen)["cpu_ms"]
        assert found.value == pytest.approx(4.0, rel=0.5)


def measured(model: str, found: Operations, usage: Usage, cpu_ms: float) -> Seen:
    wait = cpu_ms * usage.batch / usage.threads
    return Seen(model=model, work=found, usage=usage, cpu_ms=cpu_ms, latency_ms_p50=wait)


def world(models: int, noise: float, seed: int = 0) -> list[Seen]:
    """A device that is not what the probe says: convolutions 3 times slower, bfloat16 better."""
    chance = np.random.default_rng(seed)
    found = []
    for number in range(models):
        graph = work(
            op("conv", 10 ** chance.uniform(7.5, 9)),
            op("gemm", 10 ** chance.uniform(7, 9)),
            op("elementwise", 1e6, 10 ** chance.uniform(5, 7)),
        )
        for engine, precision in (("onnxruntime", "float32"), ("openvino", "bfloat16")):
            for batch in (1, 4, 16):
                usage = Usage(engine=engine, precision=precision, batch=batch)
                parts = terms(PROFILE, graph, usage, "cpu_ms")
                assert parts is not None
                truth = float(parts @ np.array([3.0, 1.5, 0.8, 0.5, 4.0, 0.0, 0.0]))
                truth *= 0.5 if precision == "bfloat16" else 1.0
                found.append(
                    measured(f"m{number}", graph, usage, truth * math.exp(chance.normal(0, noise)))
                )
    return found


class TestFit:
    def test_corrections_of_nothing_are_none(self) -> None:
        assert fit([]).shared.tolist() == uncorrected().shared.tolist()
        assert uncorrected().shared.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]

    def test_what_was_measured_mends_the_roofline(self) -> None:
        points = world(8, noise=0.02)
        raw = [
            abs(math.log(predict(PROFILE, p.work, p.usage)["cpu_ms"].value / p.cpu_ms))
            for p in points
        ]
        tested = back_test(PROFILE, points, "cpu_ms")
        assert tested is not None
        assert tested.median_error < 0.3 < math.expm1(float(np.median(raw)))
        assert (tested.points, tested.models, tested.left_out) == (48, 8, 0)
        assert "of 48 points of 8 models" in str(tested)

    def test_intervals_cover_what_they_say_on_models_never_seen(self) -> None:
        covered, count = 0.0, 0
        for seed in range(4):
            points = world(10, noise=0.2, seed=seed)
            model = Model(PROFILE, points[:48])
            for point in points[48:]:
                found = model.predict(point.work, point.usage)["cpu_ms"]
                assert found.low is not None
                assert found.high is not None
                assert found.low < found.value < found.high
                covered += found.low <= point.cpu_ms <= found.high
                count += 1
        assert covered / count >= 0.8  # 90 % is asked for, of 48 points

    def test_one_wrong_measurement_moves_little(self) -> None:
        points = world(6, noise=0.02)
        wrong = [replace(points[0], cpu_ms=points[0].cpu_ms * 50), *points[1:]]
        graph, usage = points[20].work, points[20].usage
        good = predict(PROFILE, graph, usage, points)["cpu_ms"].value
        moved = predict(PROFILE, graph, usage, wrong)["cpu_ms"].value
        assert moved == pytest.approx(good, rel=0.15)

    def test_what_was_measured_of_a_model_moves_the_rest_of_it(self) -> None:
        points = world(6, noise=0.0)
        odd = [replace(p, model="odd", cpu_ms=p.cpu_ms * 4) for p in points[:2]]
        model = Model(PROFILE, [*points[6:], *odd])
        here = model.predict(points[2].work, points[2].usage, "odd")["cpu_ms"].value
        elsewhere = model.predict(points[2].work, points[2].usage)["cpu_ms"].value
        assert here > 1.5 * elsewhere

    def test_corrections_are_never_negative_and_nothing_is_free(self) -> None:
        chance = np.random.default_rng(1)
        rows = [
            Row(
                family=("a", "", "float32", "1x1"),
                model=str(at % 3),
                terms=chance.uniform(0, 1, len(TERMS)),
                measured=float(chance.uniform(0.001, 100)),
            )
            for at in range(30)
        ]
        found = fit(rows)
        for weights in (found.shared, *found.families.values()):
            assert (weights >= 0).all()
            assert (weights[:5] > 0).all()

    def test_wall_time_of_a_busy_machine_says_nothing_and_cpu_time_does(self) -> None:
        quiet = world(4, noise=0.0)
        busy = [replace(p, load=3.5, latency_ms_p50=9 * p.latency_ms_p50) for p in quiet]
        assert back_test(PROFILE, busy, "latency_ms_p50") is None
        assert back_test(PROFILE, busy, "cpu_ms") == back_test(PROFILE, quiet, "cpu_ms")

    def test_one_model_alone_cannot_be_back_tested(self) -> None:
        points = world(1, noise=0.1)
        assert back_test(PROFILE, points) is None
        found = predict(PROFILE, points[0].work, points[0].usage, points)["cpu_ms"]
        assert found.low == pytest.approx(found.high)  # the rates of this device have no band

    def test_work_of_a_kind_that_no_other_model_has_is_left_out(self) -> None:
        points = [*world(3, noise=0.1), measured("t", work(op("trees", 1e5)), CPU, 1.0)]
        tested = back_test(PROFILE, points, "cpu_ms")
        assert tested is not None
        assert tested.left_out == 1


class TestPoints:
    def test_they_are_kept_in_the_home_and_read_back(self, tmp_path: Path) -> None:
        points = world(2, noise=0.1)
        assert read(tmp_path, "desk") == []
        assert remember(tmp_path, "desk", points[:4]) == points[:4]
        assert remember(tmp_path, "desk", points[4:]) == points
        assert read(tmp_path, "desk") == points
        assert read(tmp_path, "another") == []

    def test_a_file_that_is_damaged_or_of_another_format_is_as_good_as_none(
        self, tmp_path: Path
    ) -> None:
        remember(tmp_path, "desk", world(1, noise=0.1))
        path = path_of(tmp_path, "desk")
        text = path.read_text()
        for damaged in ("{", text.replace('"format": 1', '"format": 2'), text.replace("conv", "x")):
            path.write_text(damaged)
            assert read(tmp_path, "desk") == []

    def test_only_the_newest_are_kept(self, tmp_path: Path) -> None:
        point = world(1, noise=0.1)[0]
        many = [replace(point, time_ms=at) for at in range(MOST + 5)]
        kept = remember(tmp_path, "desk", many)
        assert len(kept) == MOST
        assert kept[0].time_ms == 5
