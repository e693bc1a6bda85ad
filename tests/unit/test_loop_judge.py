"""Counts against limits: exact tails, intervals, and what a window of batches proves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.chance import tail
from genba.core.line import RollBackOn
from genba.loop.judge import difference, faults, interval, judge
from genba.loop.traffic import MIN_BATCHES, Batch, Traffic, batch_of

LIMITS = RollBackOn(error_rate=0.01, latency_ms_p99=10.0, not_a_number_rate=0.001)


def traffic(*batches: Batch, window: int = 500) -> Traffic:
    made = Traffic()
    for second, batch in enumerate(batches, start=1):
        made = made.add(batch, second * 1_000, second * 1_000 + 999, window)
    return made


@given(n=st.integers(1, 60), rate=st.floats(0.001, 0.999), data=st.data())
def test_the_tail_is_the_binomial_sum(n: int, rate: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    exact = sum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(k, n + 1))
    found = tail(k, n, rate)
    assert found == pytest.approx(exact, rel=1e-6, abs=1e-12) if k > n * rate else found == 1.0


def test_limits_of_nothing_and_of_everything() -> None:
    assert tail(1, 100, 0.0) == 0.0
    assert tail(0, 100, 0.0) == 1.0
    assert tail(100, 100, 1.0) == 1.0


@given(a=st.integers(0, 50), b=st.integers(0, 50))
def test_the_difference_contains_what_was_seen_and_is_antisymmetric(a: int, b: int) -> None:
    low, high = difference((a, 50), (b, 50))
    assert low - 1e-12 <= (a - b) / 50 <= high + 1e-12
    back = difference((b, 50), (a, 50))
    assert back == pytest.approx((-high, -low))


def test_the_interval_of_a_proportion_is_wilsons() -> None:
    assert interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@given(latencies=st.lists(st.floats(0.1, 100.0), min_size=1, max_size=300))
def test_a_batch_never_claims_more_slow_predictions_than_there_were(
    latencies: list[float],
) -> None:
    ordered = sorted(latencies)

    def quantile(q: float) -> float:  # linear interpolation, as numpy does
        at = q * (len(ordered) - 1)
        low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
        return low + (high - low) * (at - math.floor(at))

    batch = Batch(n=len(ordered), latency_ms_p50=quantile(0.5), latency_ms_p99=quantile(0.99))
    assert batch.slow(10.0) <= sum(v > 10.0 for v in ordered)
    if quantile(0.99) > 10.0:
        assert batch.slow(10.0) >= 1


def test_the_newest_window_forgets_and_the_total_does_not() -> None:
    bad = Batch(n=100, errors=100)
    seen = traffic(bad, *[Batch(n=100)] * 6)
    assert (seen.n, seen.errors) == (700, 100)
    assert (seen.window().n, seen.window().errors) == (500, 0)
    assert (seen.from_ms, seen.to_ms) == (1_000, 7_999)


def test_the_newest_window_keeps_a_few_batches_however_large() -> None:
    assert len(traffic(*[Batch(n=10_000)] * 9).newest) == MIN_BATCHES


@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_the_newest_window_is_full_and_no_larger_than_needed(sizes: list[int]) -> None:
    seen = traffic(*[Batch(n=n) for n in sizes])
    assert seen.newest_n == sum(b.n for b in seen.newest)
    assert seen.newest_n >= min(500, sum(sizes))
    if len(seen.newest) > MIN_BATCHES:
        assert seen.newest_n - seen.newest[0].n < 500


def test_errors_beyond_doubt_are_a_fault_long_before_the_window_is_full() -> None:
    (sentence,) = faults(traffic(Batch(n=10, errors=5)), LIMITS, 500)
    assert sentence == "error_rate is 0.5 (5 of the newest 10 predictions), above 0.01"


def test_one_error_among_ten_is_no_proof() -> None:
    assert faults(traffic(Batch(n=10, errors=1)), LIMITS, 500) == ()


def test_numbers_that_are_none_are_a_fault() -> None:
    (sentence,) = faults(traffic(Batch(n=400, not_a_number=40)), LIMITS, 500)
    assert "not_a_number_rate is 0.1" in sentence


def test_two_slow_batches_are_hiccups_and_three_are_a_pattern() -> None:
    slow, fine = (
        Batch(n=250, latency_ms_p50=40, latency_ms_p99=60),
        Batch(n=250, latency_ms_p50=1, latency_ms_p99=2),
    )
    assert faults(traffic(fine, slow, slow), LIMITS, 500) == ()
    (sentence,) = faults(traffic(slow, slow, slow), LIMITS, 500)
    assert sentence.startswith("latency_ms_p99 is above 10 ms: at least 375 of the newest 750")
    assert judge(traffic(fine, slow, slow), Traffic(), LIMITS).passed
    assert not judge(traffic(slow, slow, slow), Traffic(), LIMITS).passed


def test_a_p99_just_above_the_limit_is_found_in_a_full_window() -> None:
    near = Batch(n=250, latency_ms_p50=1, latency_ms_p99=11)
    assert faults(traffic(near, near, near), LIMITS, 500)
    assert not faults(traffic(near, near, near, window=5_000), LIMITS, 5_000)


def test_nothing_seen_is_no_fault() -> None:
    assert faults(Traffic(), LIMITS, 500) == ()


def test_a_good_challenger_passes_with_its_numbers() -> None:
    made = judge(traffic(Batch(n=500, alarms=5)), traffic(Batch(n=4_000, alarms=41)), LIMITS)
    assert made.passed
    assert "500 predictions, 0 errors" in made.reason
    assert "0.01 against 0.01025" in made.reason


@pytest.mark.parametrize(
    ("batch", "word"),
    [
        (Batch(n=500, errors=6), "error_rate"),
        (Batch(n=500, not_a_number=1), "not_a_number_rate"),
        (Batch(n=500, latency_ms_p99=11.0), "latency_ms_p99"),
        (Batch(n=500, alarms=60), "above the margin"),
    ],
)
def test_a_challenger_must_be_within_every_limit(batch: Batch, word: str) -> None:
    made = judge(traffic(batch), traffic(Batch(n=4_000, alarms=41)), LIMITS)
    assert not made.passed
    assert word in made.reason


def test_a_challenger_is_judged_alone_when_the_stable_package_was_silent() -> None:
    made = judge(traffic(Batch(n=500, alarms=60)), Traffic(), LIMITS)
    assert made.passed
    assert "nothing to compare with" in made.reason


def test_a_summary_with_holes_counts_as_zero() -> None:
    assert batch_of({"n": 3, "latency_ms_p99": None}) == Batch(n=3)
