"""Counts as Prometheus reads them. Counting is adding to integers; the text is made when asked."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from genba.serve.http.responses import Refusal
from genba.serve.lanes.jobs import Job, Part
from genba.serve.watch.logs import Journal
from genba.serve.watch.tracing import Tracing

#: Has the same value in every process of a server; the others are added up.
SHARED: Final = frozenset({"genba_lines_ready", "genba_model_loaded", "genba_rollbacks"})
#: The largest of all processes.
LARGEST: Final = frozenset({"genba_capture_behind_seconds"})
KIND: Final = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
_PACKAGES: Final = 256  # whose counts are kept; those of the oldest that is not loaded go first
_AT_ONCE: Final = 4_096  # observations; sorted one by one they take ten times as long
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


Look = Callable[[Part, Sequence[float]], None]


class Histogram:
    """Observations in fixed buckets; they are sorted into them many at a time.

    Example:
        >>> h = Histogram((1, 10))
        >>> for value in (0.5, 5, 50): h.observe(value)
        >>> h.observe_all([3.0, 4.0], less=2.5)
        >>> h.buckets(), h.total
        ([('1', 2), ('10', 4), ('+Inf', 5)], 57.5)
    """

    __slots__ = ("_bounds", "_counts", "_total", "_waiting")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._total = 0.0
        self._waiting: list[float] = []

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._waiting.append(value)
        if len(self._waiting) >= _AT_ONCE:
            self._settle()

    def observe_all(self, values: Sequence[float], *, less: float = 0.0) -> None:
        """Count observations, each smaller by `less`."""
        if less:
            values = [value - less for value in values]
        self._waiting.extend(values)
        if len(self._waiting) >= _AT_ONCE:
            self._settle()

    @property
    def total(self) -> float:
        """The sum of all observations."""
        self._settle()
        return self._total

    @property
    def count(self) -> int:
        """How many observations there are."""
        self._settle()
        return int(self._counts.sum())

    def buckets(self) -> list[tuple[str, int]]:
        """Return cumulative counts by upper bound."""
        self._settle()
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, np.cumsum(self._counts).tolist(), strict=True))

    def _settle(self) -> None:
        values = np.array(self._waiting, dtype=np.float64)
        self._waiting.clear()
        places = np.searchsorted(self._bounds, values, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._total += float(values.sum())


class PackageMetrics:
    """The counts of one package since it was loaded.

    Args:
        waiting: Says how many rows wait for it.
        watts: Assumed of one core; energy is modelled from it and measured CPU time.
        look: Called with every part, and the latencies of its requests.
    """

    def __init__(
        self, waiting: Callable[[], int], watts: float = 0.0, look: Look | None = None
    ) -> None:
        self.waiting = waiting
        self._look = look
        self.predictions: Counter[tuple[str, str]] = Counter()  # (role, status) -> rows
        self.latency = Histogram(_SECONDS)
        self.queue = Histogram(_SECONDS)
        self.compute = Histogram(_SECONDS)
        self.write = Histogram(_SECONDS)
        self.failures = Histogram(_SECONDS)  # those of `latency` that ended in an error
        self.last_ms = 0  # when it computed last, Unix time
        self.batch = Histogram(_ROWS)
        self.tokens: Counter[str] = Counter()  # of a language model: prompt, answer
        self.first = Histogram(_SECONDS)
        self.cpu_seconds = 0.0
        self._watts = watts

    def add(self, part: Part, latencies_s: Sequence[float]) -> None:
        """Count one computed part: a handful of additions, however many requests it has.

        Args:
            part: What was computed.
            latencies_s: From request to answer, one per request.
        """
        jobs = part.jobs
        role = jobs[-1].role
        rows = part.rows
        bad = 0 if part.bad_rows is None else int((part.bad_rows & part.in_time).sum())
        self.batch.observe(rows)
        self.compute.observe(part.seconds)
        self.write.observe(max(0.0, part.finished - part.started - part.seconds))
        self.queue.observe_all(latencies_s, less=part.finished - part.started)
        answered_s = latencies_s
        if any([job.given_up for job in jobs]):  # those were counted when they were given up
            pairs = list(zip(jobs, latencies_s, strict=True))
            rows = sum(job.rows for job in jobs if not job.given_up)
            answered_s = [latency_s for job, latency_s in pairs if not job.given_up]
        self.latency.observe_all(answered_s)
        if part.words is not None:
            self.tokens.update(prompt=part.words.prompt, answer=part.words.answer)
            self.first.observe_all(part.words.first_s)
        self.last_ms = time.time_ns() // 1_000_000
        if part.error is not None:
            self.failures.observe_all(answered_s)
            self.predictions[role, "error"] += rows
        else:
            self.predictions[role, "ok"] += rows - bad
            if bad:
                self.predictions[role, "nan"] += bad
        if self._look is not None:
            self._look(part, latencies_s)

    def give_up(self, job: Job, latency_s: float) -> None:
        """Count one request that passed its deadline."""
        self.predictions[job.role, "error"] += job.rows
        self.latency.observe(latency_s)
        self.failures.observe(latency_s)

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

    def words(self) -> dict[str, Any]:
        """Return the tokens of a language model, and what thousand of its answers cost."""
        answer = self.tokens["answer"]
        return {
            "prompt_tokens": self.tokens["prompt"],
            "answer_tokens": answer,
            "joules_per_1000_tokens": round(1e3 * self.joules / answer, 3) if answer else None,
        }

    @property
    def joules(self) -> float:
        """What the package used since it was loaded: modelled, not measured."""
        return self.cpu_seconds * self._watts

    def energy(self) -> dict[str, Any]:
        """Return what the package used, per prediction too, and how that is known."""
        predictions = self.counts()["predictions"]
        return {
            "joules": round(self.joules, 3),
            "mj_per_prediction": round(1e3 * self.joules / predictions, 6) if predictions else None,
            "how": how_energy(self._watts),
        }


def how_energy(watts: float) -> str:
    """Say how joules are known.

    Example:
        >>> how_energy(5.0)
        'Modelled: measured CPU seconds times 5 W per core (assumed).'
    """
    return f"Modelled: measured CPU seconds times {watts:g} W per core (assumed)."


class Metrics:
    """All counts of a server.

    Args:
        watts_per_core: Assumed; energy is modelled from it and measured CPU time.
    """

    def __init__(self, watts_per_core: float) -> None:
        self._watts = watts_per_core
        self.journal = Journal()
        self.tracing: Tracing | None = None
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sheds: Counter[str] = Counter()
        self._packages: dict[tuple[str, str], PackageMetrics] = {}
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.counters: dict[str, tuple[str, Callable[[], float]]] = {}
        self.roles: Callable[[], Mapping[tuple[str, str], str]] = dict
        self.rollbacks: Callable[[], Mapping[str, int]] = dict  # by line

    def answered(self, route: str, status: int, count: int = 1) -> None:
        """Count answers."""
        self._requests[route, status] += count

    def shed(self, why: str, count: int = 1) -> None:
        """Count requests that were turned away to protect the others."""
        self._sheds[why] += count

    def refused(self, route: str, refusal: Refusal, *, line: str = "", trace: str = "") -> None:
        """Count and log a refusal."""
        self.answered(route, refusal.status)
        self.journal.refused(route, refusal, line=line, trace=trace)

    def _look(self, line: str, part: Part, latencies_s: Sequence[float]) -> None:
        if part.words is None and max(latencies_s) > self.journal.slow_s:  # words take their time
            self.journal.slow(line, part, latencies_s)
        if self.tracing is not None:
            self.tracing.look(line, part)

    def package(self, line: str, package: str, waiting: Callable[[], int]) -> PackageMetrics:
        """Return the counts of a package; they go on where they were if it was loaded before."""
        if len(self._packages) >= _PACKAGES and (line, package) not in self._packages:
            loaded = self.roles()
            oldest = next((key for key in self._packages if key not in loaded), None)
            if oldest is not None:
                del self._packages[oldest]
        look = functools.partial(self._look, line)
        found = self._packages.setdefault(
            (line, package), PackageMetrics(waiting, self._watts, look)
        )
        found.waiting = waiting
        return found

    def packages(self) -> Mapping[tuple[str, str], PackageMetrics]:
        """Return the counts of every package by line and id."""
        return self._packages

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return render(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
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
        rollbacks = CounterMetricFamily(
            "genba_rollbacks", "Packages that were rolled back or withdrawn.", labels=("line",)
        )
        for line, count in self.rollbacks().items():
            rollbacks.add_metric((line,), count)
        yield rollbacks
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
            how_energy(self._watts),
            labels=labels,
        )
        waiting = GaugeMetricFamily("genba_queue_depth", "Rows that wait.", labels=labels)
        tokens = CounterMetricFamily(
            "genba_tokens", "Tokens that language models read and wrote.", labels=(*labels, "kind")
        )
        for key, package in self._packages.items():
            for kind, count in package.tokens.items():
                tokens.add_metric((*key, kind), count)
            for (role, status), rows in package.predictions.items():
                predictions.add_metric((*key, role, status), rows)
            energy.add_metric(key, package.joules)
            waiting.add_metric(key, package.waiting())
        yield from (loaded, predictions, energy, waiting, tokens)
        yield from self._histograms(labels)

    def _histograms(self, labels: tuple[str, str]) -> Iterator[Metric]:
        kinds: tuple[tuple[str, str, Callable[[PackageMetrics], Any]], ...] = (
            ("genba_request_duration_seconds", "From request to answer.", lambda p: p.latency),
            ("genba_inference_queue_seconds", "From request to computing.", lambda p: p.queue),
            ("genba_inference_compute_seconds", "Computing one batch.", lambda p: p.compute),
            ("genba_inference_write_seconds", "Writing the answers of a batch.", lambda p: p.write),
            ("genba_first_token_seconds", "From request to the first words.", lambda p: p.first),
            ("genba_inference_batch_size", "Rows per batch.", lambda p: p.batch),
        )
        for name, text, pick in kinds:
            family = HistogramMetricFamily(name, text, labels=labels)
            for key, package in self._packages.items():
                histogram = pick(package)
                family.add_metric(key, histogram.buckets(), histogram.total)
            yield family


class _Ready(Collector):
    """Families that are collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: Iterable[Metric]) -> bytes:
    """Return metrics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready(tuple(families)))
    return generate_latest(registry)


def plain(families: Iterable[Metric]) -> list[list[Any]]:
    """Return metrics as JSON takes them: name, kind, text, and samples of name, labels, value."""
    return [
        [f.name, f.type, f.documentation, [[s.name, s.labels, s.value] for s in f.samples]]
        for f in families
    ]


def added(processes: Iterable[list[list[Any]]]) -> list[Metric]:
    """Add up the metrics of several processes of one server.

    Args:
        processes: Of each, what `plain` returned.
    """
    families: dict[str, tuple[str, str]] = {}
    totals: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for process in processes:
        for name, kind, text, samples in process:
            families.setdefault(name, (kind, text))
            total = totals.setdefault(name, {})
            larger = name in SHARED or name in LARGEST
            for sample, labels, value in samples:
                key = sample, tuple(labels.items())
                before = total.get(key, 0.0)
                total[key] = max(before, value) if larger else before + value
    found = []
    for name, (kind, text) in families.items():
        metric = Metric(name, text, kind)
        for (sample, labels), value in totals[name].items():
            metric.add_sample(sample, dict(labels), value)
        found.append(metric)
    return found
