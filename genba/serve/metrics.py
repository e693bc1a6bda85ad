"""Counts as Prometheus reads them. Counting is adding to integers; the text is made when asked."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from genba.serve.batch import Job, Part

KIND: Final = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Histogram:
    """Observations in fixed buckets.

    Example:
        >>> h = Histogram((1, 10))
        >>> for value in (0.5, 5, 50): h.observe(value)
        >>> h.buckets(), h.total
        ([('1', 1), ('10', 2), ('+Inf', 3)], 55.5)
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, int]]:
        """Return cumulative counts by upper bound."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, np.cumsum(self._counts).tolist(), strict=True))


class PackageMetrics:
    """The counts of one package since it was loaded."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.waiting = waiting
        self.predictions: Counter[tuple[str, str]] = Counter()  # (role, status) -> rows
        self.latency = Histogram(_SECONDS)
        self.queue = Histogram(_SECONDS)
        self.compute = Histogram(_SECONDS)
        self.batch = Histogram(_ROWS)
        self.cpu_seconds = 0.0

    def add(self, part: Part, latencies_s: Iterable[float]) -> None:
        """Count one computed part."""
        role = part.jobs[-1].role
        bad = 0 if part.bad_rows is None else int((part.bad_rows & part.in_time).sum())
        self.batch.observe(part.rows)
        self.compute.observe(part.seconds)
        rows = 0
        for job, latency_s in zip(part.jobs, latencies_s, strict=True):
            self.queue.observe(part.started - job.received)
            if not job.given_up:  # that was counted when it was given up
                rows += job.rows
                self.latency.observe(latency_s)
        if part.error is not None:
            self.predictions[role, "error"] += rows
        else:
            self.predictions[role, "ok"] += rows - bad
            if bad:
                self.predictions[role, "nan"] += bad

    def give_up(self, job: Job, latency_s: float) -> None:
        """Count one request that passed its deadline."""
        self.predictions[job.role, "error"] += job.rows
        self.latency.observe(latency_s)

    def counts(self) -> dict[str, int]:
        """Return predictions by what became of them."""
        by_status: Counter[str] = Counter()
        for (_, status), rows in self.predictions.items():
            by_status[status] += rows
        return {
            "predictions": by_status.total(),
            "errors": by_status["error"],
            "not_a_number": by_status["nan"],
        }


class Metrics(Collector):
    """All counts of a server.

    Args:
        watts_per_core: Assumed; energy is modelled from it and measured CPU time.
    """

    def __init__(self, watts_per_core: float) -> None:
        self._watts = watts_per_core
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sheds: Counter[str] = Counter()
        self._packages: dict[tuple[str, str], PackageMetrics] = {}
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.counters: dict[str, tuple[str, Callable[[], float]]] = {}
        self.roles: Callable[[], Mapping[tuple[str, str], str]] = dict
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answered(self, route: str, status: int) -> None:
        """Count one answer."""
        self._requests[route, status] += 1

    def shed(self, why: str) -> None:
        """Count one request that was turned away to protect the others."""
        self._sheds[why] += 1

    def package(self, line: str, package: str, waiting: Callable[[], int]) -> PackageMetrics:
        """Return the counts of a package; they go on where they were if it was loaded before."""
        found = self._packages.setdefault((line, package), PackageMetrics(waiting))
        found.waiting = waiting
        return found

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, for the registry."""
        requests = CounterMetricFamily(
            "genba_http_requests", "HTTP answers.", labels=("route", "code")
        )
        for (route, status), count in self._requests.items():
            requests.add_metric((route, str(status)), count)
        sheds = CounterMetricFamily(
            "genba_requests_shed", "Requests turned away to protect the others.", labels=("reason",)
        )
        for why, count in self._sheds.items():
            sheds.add_metric((why,), count)
        yield requests
        yield sheds
        for name, (text, read) in self.gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
        for name, (text, read) in self.counters.items():
            yield CounterMetricFamily(name, text, value=read())
        yield from self._of_packages()

    def _of_packages(self) -> Iterator[Metric]:
        labels = ("line", "package")
        loaded = GaugeMetricFamily(
            "genba_model_loaded", "Packages in memory.", labels=(*labels, "role")
        )
        for key, role in self.roles().items():
            loaded.add_metric((*key, role), 1)
        predictions = CounterMetricFamily(
            "genba_predictions", "Predictions.", labels=(*labels, "role", "status")
        )
        energy = CounterMetricFamily(
            "genba_energy_joules",
            f"Modelled: measured CPU seconds times {self._watts:g} W per core (assumed).",
            labels=labels,
        )
        waiting = GaugeMetricFamily("genba_queue_depth", "Rows that wait.", labels=labels)
        for key, package in self._packages.items():
            for (role, status), rows in package.predictions.items():
                predictions.add_metric((*key, role, status), rows)
            energy.add_metric(key, package.cpu_seconds * self._watts)
            waiting.add_metric(key, package.waiting())
        yield from (loaded, predictions, energy, waiting)
        yield from self._histograms(labels)

    def _histograms(self, labels: tuple[str, str]) -> Iterator[Metric]:
        kinds: tuple[tuple[str, str, Callable[[PackageMetrics], Any]], ...] = (
            ("genba_request_duration_seconds", "From request to answer.", lambda p: p.latency),
            ("genba_inference_queue_seconds", "From request to computing.", lambda p: p.queue),
            ("genba_inference_compute_seconds", "Computing one batch.", lambda p: p.compute),
            ("genba_inference_batch_size", "Rows per batch.", lambda p: p.batch),
        )
        for name, text, pick in kinds:
            family = HistogramMetricFamily(name, text, labels=labels)
            for key, package in self._packages.items():
                histogram = pick(package)
                family.add_metric(key, histogram.buckets(), histogram.total)
            yield family
