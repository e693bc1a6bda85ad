"""How likely a count is by chance, for whoever must tell bad luck from a bad package."""

import math

_NEGLIGIBLE = 1e-12  # of the sum so far; what follows falls at least geometrically


def tail(count: int, n: int, rate: float) -> float:
    """Return the chance of at least `count` in `n` when each happens at `rate` (binomial).

    Example:
        >>> round(tail(3, 10, 0.01), 6)
        0.000114
    """
    if count <= n * rate:
        return 1.0
    if rate <= 0.0:
        return 0.0
    if rate >= 1.0:
        return 1.0
    log = (
        math.lgamma(n + 1)
        - math.lgamma(count + 1)
        - math.lgamma(n - count + 1)
        + count * math.log(rate)
        + (n - count) * math.log1p(-rate)
    )
    term = total = math.exp(log)
    odds = rate / (1.0 - rate)
    for k in range(count, n):  # terms fall at least geometrically above the mean
        term *= (n - k) / (k + 1) * odds
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return min(total, 1.0)


def rare(count: int, expected: float) -> float:
    """Return the chance of at least `count` events where `expected` are expected (Poisson).

    Example:
        >>> round(rare(3, 0.5), 6)
        0.014388
    """
    if count <= expected:
        return 1.0
    if expected <= 0.0:
        return 0.0
    term = total = math.exp(count * math.log(expected) - expected - math.lgamma(count + 1))
    k = count
    while term >= total * _NEGLIGIBLE and term > 0.0:
        k += 1
        term *= expected / k
        total += term
    return min(total, 1.0)
