"""Packages that are loaded, timed and spread over the cores."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Layout, Tensors
from genba.core.values import PackageFile
from genba.edge.package import MODEL_FILE, SAMPLE_FILE
from genba.engines.layouts import spreads
from genba.engines.onnxruntime import OnnxRuntime
from genba.engines.openvino import OpenVino
from genba.serve.lanes import models, probe
from genba.serve.lanes.curve import Curve, measured
from genba.serve.lanes.models import LoadedModel, load_model
from genba.serve.lanes.probe import Probe, Trial, chosen, processes, share
from genba.serve.limits import Limits
from genba.serve.process import loopback
from genba.serve.process.listen import reserve
from genba.store.home import Store
from genba.testing.graphs import small_batch, small_graph
from genba.testing.serving import ENGINE, image_package, small_package

HEAVY = replace(Limits(), inline_s=0.0)  # every package is worth a probe


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_TRIAL_S", 0.004)
    monkeypatch.setattr(probe, "_QUIET", 1.0)


def golden(shift: float = 0.0) -> bytes:
    batch = small_batch(3)
    found = OnnxRuntime(small_graph(), {"precision": "float32"}).run(batch)
    found["score"] = found["score"] + np.float32(shift)
    given = {f"input.{name}": value for name, value in batch.items()}
    data: bytes = save(given | {f"output.{name}": value for name, value in found.items()})
    return data


def packaged(store: Store, shift: float = 0.0) -> str:
    """Return a package that carries golden samples."""
    files = {
        name: PackageFile(digest=store.blobs.put(data), size=len(data))
        for name, data in ((MODEL_FILE, small_graph()), (SAMPLE_FILE, golden(shift)))
    }
    return small_package(store, "pump", files=files)


class TestCurve:
    def test_sizes_double_up_to_the_largest(self) -> None:
        asked: list[int] = []
        curve = measured(lambda _, rows: asked.append(rows), lambda rows: rows, most_rows=48)
        assert sorted(curve.points()) == sorted(set(asked)) == [1, 2, 4, 8, 16, 32, 48]

    def test_no_size_is_measured_after_one_that_took_too_long(self) -> None:
        asked: list[int] = []
        measured(lambda _, rows: asked.append(rows), lambda rows: rows, most_rows=64, bound_s=0.0)
        assert set(asked) == {1}

    def test_when_the_time_is_up_one_row_is_known_all_the_same(self) -> None:
        curve = measured(lambda _, rows: rows, lambda rows: rows, most_rows=64, seconds=0.0)
        assert list(curve.points()) == [1]
        assert curve.best_rows == 1

    @given(
        st.dictionaries(st.integers(1, 512), st.floats(1e-6, 10), min_size=1, max_size=9),
        st.lists(st.tuples(st.integers(1, 600), st.floats(0, 100)), max_size=200),
        st.floats(1e-6, 10),
    )
    def test_whatever_is_learned_it_stays_a_curve(
        self, points: dict[int, float], seen: list[tuple[int, float]], bound_s: float
    ) -> None:
        curve = Curve(points, bound_s)
        for rows, seconds in seen:
            curve.learn(rows, seconds)
            assert curve.seconds(rows) >= 0.0
        assert curve.best_rows in points
        assert curve.points().keys() == points.keys()


class TestLoading:
    def test_a_package_is_timed_and_says_how_it_runs(self, store: Store) -> None:
        model = load_model(packaged(store), store.blobs.read, Limits())
        told = model.describe()
        assert json.loads(json.dumps(told)) == told
        assert told["runners"] == model.runners == 1
        assert "layout" not in told
        assert model.seconds > 0
        assert model.batch_seconds == model.curve.seconds(model.batch_rows)
        assert set(told["batch_ms"]) >= {"1", "2", "4"}
        model.close()

    def test_images_are_run_in_pieces_of_the_largest_batch(self, store: Store) -> None:
        limits = replace(Limits(), batch_images=4)
        model = load_model(image_package(store, "parts"), store.blobs.read, limits)
        seen: list[int] = []
        real = model.engine.run

        def run(tensors: Tensors) -> dict[str, Array]:
            seen.append(len(tensors["image"]))
            return real(tensors)

        model.engine.run = run  # type: ignore[method-assign]
        assert len(model.run(models.zeros(model, 10), 10)["score"]) == 10
        assert seen == [4, 4, 2]

    def test_a_heavy_package_is_spread_and_remembered(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package, cores = packaged(store), Probe(store.path, 4)
        model = load_model(package, store.blobs.read, HEAVY, cores)
        layout = model.describe()["layout"]
        assert layout["rows_per_s"] > 0
        assert model.runners == layout["runners"]
        assert model.manifest.engine == ENGINE  # the package is what it was

        def refuse(*_: object) -> None:
            raise AssertionError("it was measured again")

        monkeypatch.setattr(probe, "_tried", refuse)
        again = load_model(package, store.blobs.read, HEAVY, cores)
        assert again.describe()["layout"] == layout
        with pytest.raises(Problem, match="measured again"):  # for other cores it is another matter
            load_model(package, store.blobs.read, HEAVY, Probe(store.path, 3))

    def test_what_is_remembered_wrongly_is_measured_again(self, store: Store) -> None:
        package, cores = packaged(store), Probe(store.path, 2)
        load_model(package, store.blobs.read, HEAVY, cores).close()
        (path,) = (store.path / "layouts").iterdir()
        for damaged in (b"{", b"[]", b'{"for": 1}'):
            path.write_bytes(damaged)
            load_model(package, store.blobs.read, HEAVY, cores).close()
            assert json.loads(path.read_bytes())["best"]["runners"] >= 1

    def test_a_light_package_and_a_single_core_are_not_probed(self, store: Store) -> None:
        package = packaged(store)
        for limits, cores in ((replace(Limits(), inline_s=60.0), 4), (HEAVY, 1)):
            model = load_model(package, store.blobs.read, limits, Probe(store.path, cores))
            assert "layout" not in model.describe()
            assert model.runners == 1
        assert not (store.path / "layouts").exists()

    def test_the_samples_are_answered_once_more_in_the_layout_that_was_chosen(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = packaged(store)
        other = small_graph(seed=5)

        def strange(loaded: Any, trial: Trial) -> OnnxRuntime:
            return OnnxRuntime(other, trial.settings)

        monkeypatch.setattr(models, "_open", strange)
        with pytest.raises(Problem) as refused:
            load_model(package, store.blobs.read, HEAVY, Probe(store.path, 2))
        assert refused.value.code == "G609"

    def test_where_nothing_can_be_remembered_it_runs_all_the_same(self, store: Store) -> None:
        (store.path / "layouts").write_text("in the way")
        model = load_model(packaged(store), store.blobs.read, HEAVY, Probe(store.path, 2))
        assert "layout" in model.describe()

    def test_an_engine_that_fails_in_several_threads_is_not_used(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = threading.get_ident()
        real = OnnxRuntime.run

        def run(self: OnnxRuntime, tensors: Tensors) -> dict[str, Array]:
            if threading.get_ident() != here:
                raise ValueError("not in this thread")
            return real(self, tensors)

        monkeypatch.setattr(OnnxRuntime, "run", run)
        with pytest.raises(Problem, match="not in this thread") as refused:
            load_model(packaged(store), store.blobs.read, HEAVY, Probe(store.path, 2))
        assert refused.value.code == "G707"


class TestProbe:
    def trial(self, threads: int, rate: float, wait: float = 1.0, waited: float = 0.0) -> Trial:
        return Trial(
            settings={"threads": threads},
            runners=1,
            rows_per_s=rate,
            cpu_ms=1.0,
            latency_ms=wait,
            waited=waited,
        )

    def test_most_rows_win_and_of_equals_the_fewest_threads(self) -> None:
        assert chosen([self.trial(1, 50), self.trial(2, 100)]).threads == 2
        assert chosen([self.trial(1, 97), self.trial(2, 100)]).threads == 1
        assert chosen([self.trial(1, 97, 2.0), self.trial(2, 100, 1.0)]).threads == 2

    def test_a_disturbed_trial_is_held_against_what_it_would_have_given(self) -> None:
        assert chosen([self.trial(1, 54), self.trial(2, 51, waited=0.5)]).threads == 2

    def test_a_disturbed_probe_is_soon_tried_again(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probe, "_QUIET", -1.0)
        package, cores = packaged(store), Probe(store.path, 2)
        times = []
        for within_s in (60.0, 60.0, -1.0):
            monkeypatch.setattr(probe, "_DISTURBED_S", within_s)
            assert "layout" in load_model(package, store.blobs.read, HEAVY, cores).describe()
            (path,) = (store.path / "layouts").iterdir()
            times.append(json.loads(path.read_bytes())["time_s"])
        assert times[0] == times[1] < times[2]

    def test_when_the_time_is_up_the_first_layout_is_known(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probe, "_PROBE_S", -1.0)
        layouts = OnnxRuntime.layouts({"precision": "float32"}, 8)
        opened: list[JsonObject] = []

        def load(settings: JsonObject) -> OnnxRuntime:
            opened.append(settings)
            return OnnxRuntime(small_graph(), settings)

        assert len(probe._tried(layouts, load, small_batch)) == len(opened) == 1

    def test_a_system_that_counts_no_waiting(self) -> None:
        assert probe._waited_s(Path("/nowhere")) == 0.0
        assert probe._waited_s() >= 0.0

    def test_cores_are_shared(self) -> None:
        assert share(10_000) == 1
        assert share() >= share(2) >= 1

    @given(st.integers(1, 256))
    def test_layouts_fit_the_cores_and_change_no_precision(self, cores: int) -> None:
        assert spreads(cores)[0] == (1, 1)
        assert all(threads * runs <= cores for threads, runs in spreads(cores))
        for kind in (OnnxRuntime, OpenVino):
            layouts: Sequence[Layout] = kind.layouts({"precision": "float32", "threads": 3}, cores)
            assert all(layout.settings["precision"] == "float32" for layout in layouts)
            assert all(layout.runners >= 1 for layout in layouts)


class TestProcesses:
    def asked(self, rates: Mapping[int, float]) -> Any:
        self.counts: list[int] = []

        def rate(count: int, _seconds: float) -> float:
            self.counts.append(count)
            return rates[count]

        return rate

    def test_they_double_as_long_as_that_gains(self, tmp_path: Path) -> None:
        rate = self.asked({1: 100, 2: 190, 4: 200})
        assert processes(16, 16, tmp_path, rate) == (
            2,
            "requests/s by number of processes in a trial on the loopback: 1: 100, 2: 190, 4: 200",
        )
        assert self.counts == [1, 2, 4]
        found, reason = processes(16, 16, tmp_path, self.asked({}))
        assert found == 2
        assert "2: 190" in reason
        assert self.counts == []

    @pytest.mark.parametrize(("wanted", "cores"), [(2, 2), (3, 3), (1, 64)])
    def test_on_few_cores_it_is_one_without_a_trial(
        self, wanted: int, cores: int, tmp_path: Path
    ) -> None:
        found, reason = processes(wanted, cores, tmp_path, self.asked({}))
        assert found == 1
        assert reason
        assert self.counts == []

    def test_a_trial_that_fails_is_one_process(self, tmp_path: Path) -> None:
        def fails(_count: int, _seconds: float) -> float:
            raise OSError("no loopback")

        assert processes(8, 8, tmp_path, fails) == (
            1,
            "the trial on the loopback failed: no loopback",
        )
        (tmp_path / "layouts").write_text("in the way")
        assert processes(8, 8, tmp_path, self.asked({1: 1.0, 2: 1.0}))[0] == 1

    def test_the_trial_itself_counts_answers(self, capsys: pytest.CaptureFixture[str]) -> None:
        async def both(port: int) -> None:
            answering = asyncio.create_task(loopback._answer(port))
            while capsys.readouterr().out != "ready\n":
                await asyncio.sleep(0.001)
            await asyncio.to_thread(loopback.main, ["ask", str(port), "0.02"])
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

        with reserve("127.0.0.1", 0) as reserved:
            asyncio.run(both(reserved.getsockname()[1]))
        assert float(capsys.readouterr().out) > 0

    @pytest.mark.slow
    def test_two_processes_on_one_port_are_asked_by_two_others(self) -> None:
        assert loopback.requests_per_s(2, 0.2) > 0

    def test_every_request_of_a_packet_is_answered(self) -> None:
        written: list[bytes] = []

        class Transport(asyncio.Transport):
            def write(self, data: Any) -> None:
                written.append(data)

        answers = loopback._Answers()
        answers.connection_made(Transport())
        answers.data_received(loopback._QUESTION * 3)
        assert written == [loopback._ANSWER] * 3


def test_a_model_that_is_not_warm_takes_no_time(store: Store) -> None:
    engine = OnnxRuntime(small_graph(), ENGINE.settings)
    loaded = load_model(packaged(store), store.blobs.read, Limits())
    assert LoadedModel(loaded.package, loaded.manifest, engine, Limits()).seconds == 0.0
