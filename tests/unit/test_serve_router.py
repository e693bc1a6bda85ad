"""Who answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.serve.lanes.router import Routes, falls_in_share


@given(
    share=st.floats(0, 1),
    salt=st.integers(0, 10**9),
    start=st.integers(0, 10**12),
    step=st.integers(1, 12),
)
def test_the_share_holds_for_any_stretch_and_any_thinning(
    share: float, salt: int, start: int, step: int
) -> None:
    """Machines that report in turn each see the canary as often as all together do."""
    n = 2_000
    hits = sum(falls_in_share(start + i * step, share, salt) for i in range(n))
    assert abs(hits / n - share) < 0.02  # a coin would need 0.05


def test_everything_and_nothing() -> None:
    assert all(falls_in_share(n, 1.0) for n in range(1_000))
    assert not any(falls_in_share(n, 0.0) for n in range(1_000))


def test_roles() -> None:
    assert Routes[str]().choose(1) is None
    assert Routes[str](canary="b", share=1.0, shadow="c").choose(1) is None
    routes = Routes("a", canary="b", share=0.5, shadow="c", salt=7)
    answered = [routes.choose(n) for n in range(1_000)]
    assert answered == [routes.choose(n) for n in range(1_000)]
    assert answered.count(("b", "canary")) == pytest.approx(500, abs=5)
    assert set(answered) == {("a", "stable"), ("b", "canary")}
