"""Windows over captures: the stated false-alarm rate, found shifts, resumption."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genba.core.line import Data, Line, Retrain
from genba.core.values import EngineChoice, Manifest, Signature, Tensor, Verdict
from genba.learn.drift import null_quantile, reference
from genba.stages.watch import DEFAULT_WINDOW, OpenWindow, WatchReport, start, watch
from genba.store.captures import CapturedRows, CaptureWriter, Interval, in_sample
from genba.store.home import Store
from genba.targets.cost import bill

SENSORS = ("wind", "power")
LINE = Line(
    name="farm",
    task="sensor.anomaly",
    data=Data(source="files:x.csv"),
    retrain=Retrain(when={"drift": 0.05}),
)

Floats = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let windows be as short as the tests like."""
    monkeypatch.setattr("genba.stages.watch.FEWEST", 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def manifest(window: int | None = 100, null_q: float = 0.1, **columns: Floats) -> Manifest:
    drift = {
        "window": window,
        "columns": {n: {**reference(v), "null_q": null_q} for n, v in columns.items()},
        "false_alarm_rate": 0.01,
    }
    return Manifest(
        format=1,
        line="farm",
        task="sensor.anomaly",
        model="m",
        run="r",
        dataset="d",
        engine=EngineChoice(name="onnxruntime"),
        signature=Signature(
            inputs=(
                Tensor(name="window", datatype="FP32", shape=(-1, 3, 2)),
                Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
            ),
            outputs=(Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),),
        ),
        settings={"sensors": list(SENSORS)} | ({"drift": drift} if window else {}),
        entities=("A",),
        files={},
        verdict=Verdict(passed=True),
    )


def capture(
    store: Store,
    now: Floats,
    *,
    package: str = "p",
    score: Floats | None = None,
    status: str = "ok",
    first: int = 0,
    cpu_seconds: float = 0.0,
    latency_us: int = 900,
) -> None:
    """Write one capture batch whose windows end with the rows of `now`."""
    n = len(now)
    window = np.full((n, 3, 2), -999.0, dtype=np.float32)
    window[:, -1, :] = now
    rows = CapturedRows(
        package=package,
        n=np.arange(first, first + n),
        received_ms=np.arange(first, first + n) + 1_000,
        role=["stable"] * n,
        entity=["A"] * n,
        time=[None] * n,
        latency_us=np.full(n, latency_us),
        status=[status] * n,
        features={"window": window},
        outputs={"score": np.ones(n) if score is None else score} if status != "error" else {},
    )
    body = {"role": "stable", "n": n, "cpu_seconds": cpu_seconds}
    made = Interval(from_ms=first, to_ms=first + n, packages={package: body}, rows=(rows,))
    CaptureWriter(store, "farm", "s1").write(made)


def findings(report: WatchReport, window: int = 0) -> dict[tuple[str, str], Any]:
    return {(f["kind"], f["name"]): f for f in report.windows[window]["findings"]}


def normal(rng: np.random.Generator, n: int) -> Floats:
    return rng.normal(size=(n, 2))


def test_undisturbed_readings_do_not_drift_and_a_shift_is_found(store: Store) -> None:
    rng = np.random.default_rng(0)
    known = normal(rng, 5_000)
    made = manifest(null_q=0.4, wind=known[:, 0], power=known[:, 1])
    capture(store, normal(rng, 100))
    shifted = normal(rng, 100) + np.array([0.0, 1.5])
    capture(store, shifted, first=100)
    report = watch(store, LINE, made, start("p", 0))
    assert [w["rows"] for w in report.windows] == [100, 100]
    assert not findings(report, 0)["input", "power"]["drifted"]
    found = findings(report, 1)
    assert found["input", "power"]["drifted"]
    assert not found["input", "wind"]["drifted"]
    assert found["input", "power"]["limit"] == 0.05
    assert found["input", "power"]["null_q"] == 0.4


def test_a_psi_that_chance_explains_is_not_drift(store: Store) -> None:
    rng = np.random.default_rng(0)
    made = manifest(null_q=100.0, wind=normal(rng, 5_000)[:, 0])
    capture(store, normal(rng, 100) + 3.0)
    found = findings(watch(store, LINE, made, start("p", 0)))["input", "wind"]
    assert found["statistic"] > 0.2
    assert not found["drifted"]


def test_the_score_is_watched_like_an_input(store: Store) -> None:
    rng = np.random.default_rng(0)
    made = manifest(score=rng.exponential(size=5_000))
    capture(store, normal(rng, 100), score=rng.exponential(size=100) * 4)
    found = findings(watch(store, LINE, made, start("p", 0)))
    assert found["output", "score"]["drifted"]


@pytest.mark.parametrize("rate", [0.05])
def test_the_stated_false_alarm_rate_holds_on_stationary_autocorrelated_readings(
    rate: float,
) -> None:
    """400 windows of AR(1) readings against a null from 40 windows' worth of them.

    The reference is itself a sample, so the rate is allowed twice its stated value.
    """
    from genba.learn.drift import counts, psi

    rng = np.random.default_rng(7)

    def readings(n: int) -> Floats:
        noise, made = rng.normal(size=n), np.empty(n)
        made[0] = noise[0]
        for i in range(1, n):
            made[i] = 0.9 * made[i - 1] + noise[i] * np.sqrt(1 - 0.81)
        return made

    known = readings(20_000)
    null_q = null_quantile(known, np.arange(20_000), 500, rate, block=500)
    made = reference(known)
    live = readings(400 * 500).reshape(400, 500)
    index = np.array([psi(made["p"], counts(made["edges"], w)) for w in live])
    assert 0.0 < (index > null_q).mean() <= 2 * rate
    # Against the null of independent rows, the same readings would raise alarm after alarm.
    naive = null_quantile(rng.permutation(known), np.arange(20_000), 500, rate, block=500)
    assert (index > naive).mean() > 0.5


def test_windows_are_cut_the_same_however_the_batches_fall(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, made = normal(rng, 350), manifest(wind=normal(rng, 1_000)[:, 0])
    capture(store, rows)
    whole = watch(store, LINE, made, start("p", 0))
    with Store.open(tmp_path / "other") as other:
        opened = start("p", 0)
        windows: list[Any] = []
        for first in range(0, 350, 70):
            capture(other, rows[first : first + 70], first=first)
            report = watch(other, LINE, made, opened)
            opened = report.open
            windows += report.windows
    assert len(windows) == len(whole.windows) == 3
    for mine, its in zip(windows, whole.windows, strict=True):
        assert mine["findings"][0] == its["findings"][0]
    assert report.open.rows == whole.open.rows == 50


def test_a_watch_that_lost_its_counts_goes_on_where_the_window_began(store: Store) -> None:
    rng = np.random.default_rng(0)
    made = manifest(wind=normal(rng, 1_000)[:, 0])
    capture(store, normal(rng, 130))
    first = watch(store, LINE, made, start("p", 0))
    cursor = first.windows[0]["cursor"]
    resumed = OpenWindow(package="p", seq=cursor["seq"], row=cursor["row"], number=1)
    capture(store, normal(rng, 90), first=130)
    kept, again = watch(store, LINE, made, first.open), watch(store, LINE, made, resumed)
    assert kept.windows == again.windows
    assert kept.windows[0]["window"] == 1
    events = store.ledger.events(kinds=("watch",))
    assert [e.body["window"] for e in events] == [0, 1]  # the second time added nothing


def test_nothing_new_means_nothing_written(store: Store) -> None:
    made = manifest(wind=np.arange(100.0))
    capture(store, normal(np.random.default_rng(0), 10))
    opened = watch(store, LINE, made, start("p", 0)).open
    report = watch(store, LINE, made, opened)
    assert (report.rows, report.windows, report.open.rows) == (0, (), 10)


def test_only_the_packages_own_predictions_count(store: Store) -> None:
    made = manifest(window=10, wind=np.arange(100.0))
    capture(store, np.zeros((50, 2)), package="canary")
    assert watch(store, LINE, made, start("p", 0)).rows == 0


def test_missing_values_errors_latency_and_energy_come_with_the_window(store: Store) -> None:
    known = np.arange(1_000.0)
    made = manifest(window=20, wind=known, power=known)
    now = np.full((10, 2), 5.0)
    now[:4, 1] = np.nan
    capture(store, now, cpu_seconds=0.02, latency_us=2_000)
    capture(store, np.zeros((10, 2)), first=10, status="error", latency_us=900_000)
    found = findings(watch(store, LINE, made, start("p", 0)))
    assert found["missing", "power"]["statistic"] == pytest.approx(0.4)
    assert found["missing", "power"]["drifted"]
    assert ("missing", "wind") not in found
    assert found["errors", "error_rate"]["statistic"] == 0.5
    assert found["errors", "error_rate"]["drifted"]
    assert found["latency", "latency_ms_p99"]["statistic"] == pytest.approx(900.0)
    assert found["latency", "latency_ms_p99"]["drifted"]
    energy = found["energy", "energy_mj"]
    assert energy["statistic"] == pytest.approx(0.02 * 5 * 1e3 / 20)
    assert not energy["drifted"]


def test_a_window_of_nothing_but_errors_has_no_drift_to_speak_of(store: Store) -> None:
    made = manifest(window=10, wind=np.arange(100.0))
    capture(store, np.zeros((10, 2)), status="error")
    found = findings(watch(store, LINE, made, start("p", 0)))
    assert ("input", "wind") not in found


def test_a_package_without_a_reference_is_watched_for_quality(store: Store) -> None:
    capture(store, np.zeros((DEFAULT_WINDOW, 2)))
    found = findings(watch(store, LINE, manifest(window=None), start("p", 0)))
    assert {kind for kind, _ in found} == {"latency", "errors", "energy"}


def test_channels_that_were_never_captured_are_left_out(store: Store) -> None:
    made = manifest(window=10, gone=np.arange(100.0))
    capture(store, np.zeros((10, 2)))
    assert ("output", "gone") not in findings(watch(store, LINE, made, start("p", 0)))


def test_a_damaged_capture_is_reported_and_passed_over(store: Store) -> None:
    made = manifest(window=10, wind=np.arange(100.0))
    capture(store, np.ones((10, 2)))
    (record,) = store.ledger.find("capture")
    path = store.blobs.path(record.body["blob"])
    path.chmod(0o644)
    path.write_bytes(b"rust")
    capture(store, np.zeros((10, 2)), first=10)
    found = findings(watch(store, LINE, made, start("p", 0)))
    assert found["damaged", "damaged_captures"]["drifted"]


def test_the_watch_of_a_package_begins_where_it_became_stable(store: Store) -> None:
    made = manifest(window=10, wind=np.arange(100.0))
    capture(store, np.zeros((10, 2)))
    seq, _ = store.ledger.head()
    assert watch(store, LINE, made, start("p", seq + 1)).rows == 0


def test_a_reference_for_windows_too_short_to_mean_anything_is_not_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.stages.watch.FEWEST", 50)
    capture(store, np.zeros((DEFAULT_WINDOW, 2)))
    report = watch(store, LINE, manifest(window=49, wind=np.arange(100.0)), start("p", 0))
    assert [w["rows"] for w in report.windows] == [DEFAULT_WINDOW]
    assert ("input", "wind") not in findings(report)


def write_some(store: Store, now: Floats, kept: npt.NDArray[np.int64], **more: Any) -> None:
    """Write the rows of some predictions as a line does that keeps a sample."""
    window = np.zeros((len(kept), 3, 2), dtype=np.float32)
    window[:, -1, :] = now[kept]
    inputs = more.get("inputs", "all")
    rows = CapturedRows(
        package="p",
        n=kept,
        received_ms=kept + 1_000,
        role=["stable"] * len(kept),
        entity=["A"] * len(kept),
        time=[None] * len(kept),
        latency_us=np.full(len(kept), 900),
        status=["ok"] * len(kept),
        features={"window": window} if inputs == "all" else {},
        outputs={"score": np.ones(len(kept))},
    )
    body = {"role": "stable", "n": len(now), "cpu_seconds": 1.0}
    made = Interval(from_ms=0, to_ms=1, packages={"p": body}, rows=(rows,), **more)
    CaptureWriter(store, "farm", "s1").write(made)


def test_alarms_beyond_the_sample_do_not_look_like_drift(store: Store) -> None:
    rng = np.random.default_rng(0)
    now = normal(rng, 2_000)
    known = manifest(window=400, wind=normal(rng, 4_000)[:, 0])
    strange = np.abs(now[:, 0]) > 1  # all of these are alarms, so all of them were kept
    sample = in_sample(np.arange(2_000), 0.25)
    write_some(store, now, np.flatnonzero(sample | strange), sample=0.25)
    report = watch(store, LINE, known, start("p", 1))
    assert report.rows == sample.sum()
    assert findings(report)["kept", "sample"]["statistic"] == 0.25
    assert not findings(report)["input", "wind"]["drifted"]
    # One CPU second for 2,000 predictions, whoever kept them.
    energy = findings(report)["energy", "energy_mj"]["statistic"]
    assert energy == pytest.approx(bill(1.0, 1.0).joules.value * 1e3 / 2_000, rel=1e-3)


def test_inputs_that_are_not_kept_are_said_to_be_unwatched(store: Store) -> None:
    rng = np.random.default_rng(0)
    known = manifest(window=100, wind=normal(rng, 400)[:, 0])
    write_some(store, normal(rng, 100), np.arange(100), inputs="none")
    found = findings(watch(store, LINE, known, start("p", 1)))
    assert ("input", "wind") not in found
    unkept = found["kept", "inputs_not_kept"]
    assert (unkept["statistic"], unkept["drifted"]) == (1.0, False)
