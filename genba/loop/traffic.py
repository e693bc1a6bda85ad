"""What a package answered, summed over capture batches, with the newest window kept apart."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

#: The newest window never has fewer batches, so that one hiccup cannot fill it.
MIN_BATCHES: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One package's part of one capture batch."""

    n: int
    errors: int = 0
    not_a_number: int = 0
    alarms: int = 0
    latency_ms_p50: float = 0.0
    latency_ms_p99: float = 0.0
    cpu_seconds: float = 0.0

    def slow(self, limit_ms: float) -> int:
        """Return how many predictions certainly took longer than a limit.

        Batches keep two quantiles, not every latency. A quantile q above the limit means that
        every latency from the one at index ceil(q * (n - 1)) on is above it.

        Example:
            >>> Batch(n=400, latency_ms_p50=1, latency_ms_p99=30).slow(10)
            4
        """
        if self.latency_ms_p50 > limit_ms:
            return self.n - self.n // 2
        return self.n - -(-99 * (self.n - 1) // 100) if self.latency_ms_p99 > limit_ms else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """What a package answered since it took its role.

    `newest` holds the newest batches that together make the window; older ones only count.
    """

    n: int = 0
    errors: int = 0
    not_a_number: int = 0
    alarms: int = 0
    cpu_seconds: float = 0.0
    from_ms: int = 0
    to_ms: int = 0
    newest: tuple[Batch, ...] = ()
    newest_n: int = 0

    def add(self, batch: Batch, from_ms: int, to_ms: int, window: int) -> "Traffic":
        """Return the traffic with one more batch; `window` is in predictions."""
        newest, count = (*self.newest, batch), self.newest_n + batch.n
        drop = 0
        while count - newest[drop].n >= window and len(newest) - drop > MIN_BATCHES:
            count -= newest[drop].n
            drop += 1
        return Traffic(
            n=self.n + batch.n,
            errors=self.errors + batch.errors,
            not_a_number=self.not_a_number + batch.not_a_number,
            alarms=self.alarms + batch.alarms,
            cpu_seconds=self.cpu_seconds + batch.cpu_seconds,
            from_ms=self.from_ms or from_ms,
            to_ms=max(self.to_ms, to_ms),
            newest=newest[drop:],
            newest_n=count,
        )

    def window(self) -> "Traffic":
        """Return the sums over the newest window only."""
        return replace(
            self,
            n=self.newest_n,
            errors=sum(b.errors for b in self.newest),
            not_a_number=sum(b.not_a_number for b in self.newest),
            alarms=sum(b.alarms for b in self.newest),
            cpu_seconds=sum(b.cpu_seconds for b in self.newest),
        )

    def slow(self, limit_ms: float) -> int:
        """Return how many predictions of the newest window certainly exceeded a latency."""
        return sum(b.slow(limit_ms) for b in self.newest)


def batch_of(summary: Mapping[str, Any]) -> Batch:
    """Read one package's entry in a capture's `packages`; what is absent counts as zero."""
    return Batch(
        n=int(summary.get("n") or 0),
        errors=int(summary.get("errors") or 0),
        not_a_number=int(summary.get("not_a_number") or 0),
        alarms=int(summary.get("alarms") or 0),
        latency_ms_p50=float(summary.get("latency_ms_p50") or 0.0),
        latency_ms_p99=float(summary.get("latency_ms_p99") or 0.0),
        cpu_seconds=float(summary.get("cpu_seconds") or 0.0),
    )
