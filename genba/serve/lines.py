"""One line in service: its packages in their roles, its requests, its counts."""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from genba.core.protocols import Array
from genba.core.rollout import Placed, Rollout
from genba.core.values import Role
from genba.serve import oip
from genba.serve.answers import write_answer
from genba.serve.batch import Job, Lane, Part, reason
from genba.serve.capture import Batch, Recorder, Tally, now_ms
from genba.serve.images import is_file
from genba.serve.limits import Limits
from genba.serve.metrics import Metrics
from genba.serve.models import LoadedModel
from genba.serve.oip import Bounds, Inputs
from genba.serve.protocol import Request
from genba.serve.responses import MISTAKE, Refusal, overloaded
from genba.serve.router import Routes
from genba.serve.schema import Schema, describe_model
from genba.serve.service import Service, describe_rollout

_log = logging.getLogger("genba.serve")


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What a line shall have in service, with everything loaded that it needs."""

    line: str
    rollout: Rollout
    models: Mapping[str, LoadedModel]  # by package; whatever is not in here is let go
    failed: Mapping[str, str] = field(default_factory=dict)  # package -> why it is not loaded
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # as they were set


class Numbers:
    """The running numbers of a server's predictions."""

    def __init__(self, server: str) -> None:
        self.server = server
        self._next = 0

    def take(self, rows: int) -> int:
        """Return the first of so many new numbers."""
        first = self._next
        self._next += rows
        return first


class LineService:
    """Serves one line. Belongs to the event loop.

    Args:
        name: Of the line.
        loop: The event loop.
        limits: Of the server.
        numbers: Where prediction numbers come from.
        recorder: Where captures go.
        metrics: Where counts go.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        *,
        numbers: Numbers,
        recorder: Recorder,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.rollout = Rollout()
        self.failed: Mapping[str, str] = {}
        self._loop = loop
        self._limits = limits
        self._numbers = numbers
        self._recorder = recorder
        self._metrics = metrics
        self._routes: Routes[Service] = Routes()
        self._services: dict[str, Service] = {}
        self._retiring: list[Service] = []
        self._by_lane: dict[Lane, Service] = {}
        self._requests = 0
        self._parts: list[Part] = []
        self._parsing = 0  # requests that are read on a thread
        self._since_ms = now_ms()

    @property
    def ready(self) -> bool:
        """Whether the line can answer."""
        return self._routes.stable is not None

    @property
    def busy(self) -> bool:
        """Whether a request is still being worked on."""
        return self._parsing > 0 or any(not service.lane.idle for service in self._all())

    def place(self, placement: Placement) -> None:
        """Put packages into their roles, between two requests; nothing is interrupted.

        Lanes that are no longer needed finish what they have and are closed then.
        """
        for package, model in placement.models.items():
            if package not in self._services:
                self._services[package] = self._serve(model)
        for package in self._services.keys() - placement.models.keys():
            service = self._services.pop(package)
            service.retired = True
            self._retiring.append(service)
            service.lane.retire()
        for package, service in self._services.items():
            service.tune(placement.parameters.get(package, {}))
        rollout = placement.rollout
        self._routes = Routes(
            stable=self._service(rollout.stable),
            canary=self._service(rollout.canary),
            share=rollout.canary.share if rollout.canary else 0.0,
            shadow=self._service(rollout.shadow),
            salt=rollout.canary.since_seq if rollout.canary else 0,
        )
        self.rollout = rollout
        self.failed = placement.failed

    def infer(self, request: Request, version: str | None) -> None:
        """Check a request and send it to the package whose turn it is.

        Raises:
            Refusal: 400 for a malformed request, 404 for a version that does not answer, 503 when
                nothing is loaded or the queue is full.
        """
        service, role = self._choose(version)
        if not service.lane.has_room(1, request.size):
            raise self._shed("queue")
        read = self._reader(request, service.model.schema)
        if (
            oip.json_size(request.body, request.headers.get(oip.HEAD_LENGTH))
            <= self._limits.parse_bytes
        ):
            self._admit(request, read(), service, role)
            return
        self._parsing += 1
        future = self._loop.run_in_executor(None, read)
        future.add_done_callback(functools.partial(self._parsed, request, version, service, role))

    def metadata(self, version: str | None) -> dict[str, Any]:
        """Return the answer to GET /v2/models/{line}."""
        chosen, _ = self._choose(version, count=False)
        versions = [service.model.package for service, _ in self._answering()]
        return describe_model(self.name, versions, chosen.model.manifest, chosen.parameters)

    def describe(self) -> dict[str, Any]:
        """Return rollout, versions and counts as JSON."""
        return {
            "line": self.name,
            "ready": self.ready,
            **describe_rollout(self.rollout),
            "failed": dict(self.failed),
            "versions": {package: one.describe() for package, one in self._services.items()},
        }

    def roles(self) -> dict[str, str]:
        """Return the role of every package in memory."""
        placed = {
            p.package: role
            for role in ("shadow", "canary", "stable")
            if (p := getattr(self.rollout, role)) is not None
        }
        return {package: placed.get(package, "previous") for package in self._services}

    def expire(self, now: float) -> None:
        """Give up on requests that are past their deadline."""
        for service in self._all():
            service.lane.expire(now)

    def computed_s(self) -> float:
        """Return the seconds of computing since the last `cut`."""
        return sum(service.interval.compute_s for service in self._all())

    def cut(self, cpu_per_compute_s: float) -> Batch | None:
        """Return what was answered since the last cut and start a new interval.

        Args:
            cpu_per_compute_s: CPU seconds of the whole process per second of computing, so that a
                package is charged with its share of the server too.
        """
        until = now_ms()
        tallies: dict[str, tuple[Tally, float]] = {}
        for service in self._all():
            tally = service.interval
            if tally.n:
                cpu_seconds = tally.compute_s * cpu_per_compute_s
                service.metrics.cpu_seconds += cpu_seconds
                tallies[service.model.package] = (tally, cpu_seconds)
                service.interval = Tally()
        for service in [s for s in self._retiring if s.lane.idle]:
            self._retiring.remove(service)
            del self._by_lane[service.lane]
        since, self._since_ms = self._since_ms, until
        if not tallies:
            return None
        parts, self._parts = self._parts, []
        return Batch(
            line=self.name,
            from_ms=since,
            to_ms=until,
            tallies=tallies,
            parts=parts,
            rows=sum(part.rows for part in parts),
        )

    # Helpers.

    def _reader(self, request: Request, wanted: Schema) -> Callable[[], Inputs]:
        """Return what reads a request; it may be called on any thread."""
        length = request.headers.get(oip.HEAD_LENGTH)
        kind = request.headers.get(b"content-type", b"")
        if wanted.image is None:
            bounds = Bounds(self._limits.request_rows)
        elif is_file(request.body, kind, length):
            return functools.partial(oip.read_image, request.body, request.target, wanted)
        else:
            sizes = {service.model.schema.size for service in self._services.values()}
            bounds = Bounds(self._limits.request_images, sizes)
        return functools.partial(oip.read_request, request.body, length, wanted, bounds)

    def _parsed(
        self,
        request: Request,
        version: str | None,
        service: Service,
        role: Role,
        future: "asyncio.Future[Inputs]",
    ) -> None:
        """Go on with a request that was read on a thread."""
        self._parsing -= 1
        try:
            if (
                service.retired
            ):  # its package was exchanged meanwhile; another may read it otherwise
                self.infer(request, version)
            else:
                self._admit(request, future.result(), service, role)
        except Refusal as refusal:
            self._refuse(request, refusal)
        except Exception:  # noqa: BLE001  # our mistake must not leave the client waiting
            _log.exception("an error in the server")
            self._refuse(request, MISTAKE)

    def _admit(self, request: Request, inputs: Inputs, service: Service, role: Role) -> None:
        if not service.lane.has_room(inputs.rows, request.size):
            raise self._shed("queue")
        request.body = b""  # what is needed of it is in the inputs
        tensors = service.complete(inputs.tensors, inputs.rows)
        job = Job(request, inputs, self._numbers.take(inputs.rows), role, tensors)
        service.lane.submit(job)
        if self._routes.shadow is not None:
            self._shadow(self._routes.shadow, job, inputs, service.model)

    def _serve(self, model: LoadedModel) -> Service:
        lane = Lane(
            model, self._loop, self._limits, self._finished, self._expired, self._write_answers
        )
        metrics = self._metrics.package(self.name, model.package, lambda: lane.waiting_rows)
        service = self._by_lane[lane] = Service(model, lane, metrics)
        return service

    def _all(self) -> list[Service]:
        return [*self._services.values(), *self._retiring]

    def _service(self, placed: Placed | None) -> Service | None:
        return self._services.get(placed.package) if placed else None

    def _answering(self) -> list[tuple[Service, Any]]:
        routes = self._routes
        roles = ((routes.stable, "stable"), (routes.canary, "canary"))
        return [(service, role) for service, role in roles if service is not None]

    def _choose(self, version: str | None, *, count: bool = True) -> tuple[Service, Any]:
        if version is not None:
            for service, role in self._answering():
                if service.model.package == version:
                    return service, role
            answering = ", ".join(s.model.package for s, _ in self._answering()) or "none"
            what = (
                f"Version {version!r} of line {self.name} does not answer; these do: {answering}."
            )
            raise Refusal(404, "G703", what)
        self._requests += count
        chosen = self._routes.choose(self._requests) if count else None
        if chosen is None and self._routes.stable is not None:
            chosen = self._routes.stable, "stable"
        if chosen is None:
            what = f"Line {self.name} has no package in service."
            raise Refusal(503, "G705", what, b"Retry-After: 1\r\n")
        return chosen

    def _shed(self, why: str) -> Refusal:
        self._metrics.shed(why)
        return overloaded(f"Line {self.name} has as many requests waiting as it takes.")

    def _shadow(self, shadow: Service, job: Job, inputs: Inputs, answering: LoadedModel) -> None:
        """Show the shadow the same request; under load the shadow is the first to go without."""
        if not shadow.lane.has_room(2 * job.rows, 2 * job.size):
            self._metrics.shed("shadow")
            return
        tensors: Mapping[str, Array] = inputs.tensors
        theirs, ours = shadow.model.schema, answering.schema
        if theirs.entity and theirs.entities != ours.entities:
            names = job.entity_names or [name or "" for name in ours.names(tensors[theirs.entity])]
            tensors = {**tensors, theirs.entity: theirs.indices(names)}
        shadow.lane.submit(job.shadow(shadow.complete(tensors, job.rows)))

    def _write_answers(self, part: Part) -> None:
        """Write the answers of a part. May be called on a thread, and reads only what stays."""
        start = 0
        for job in part.jobs:
            stop = start + job.rows
            if job.request is not None:
                outputs = part.outputs
                if len(part.jobs) > 1:
                    outputs = {name: array[start:stop] for name, array in outputs.items()}
                job.answer = write_answer(
                    part.model.schema,
                    job.wanted,
                    outputs,
                    line=self.name,
                    parameters={
                        "prediction": f"{self._numbers.server}-{job.first}",
                        "package": part.model.package,
                        "role": job.role,
                    },
                )
            start = stop

    def _finished(self, lane: Lane, part: Part) -> None:
        """Answer the jobs of a part, then count and capture it."""
        for job in part.jobs:
            if job.request is not None:
                self._answer(job.request, job, part)
        part.finished = time.perf_counter()
        if part.refusal is not None:
            return  # nothing was predicted, and the package is not to blame
        latencies = [part.finished - job.received for job in part.jobs]
        service = self._by_lane[lane]
        service.interval.add(part, latencies)
        service.metrics.add(part, latencies)
        for job in part.jobs:
            job.request = None
        part.drop_maps()
        if self._recorder.admit(part):
            self._parts.append(part)

    def _answer(self, request: Request, job: Job, part: Part) -> None:
        if part.refusal is not None:
            self._refuse(request, part.refusal)
        elif part.error is not None or job.answer is None:
            error = part.error or RuntimeError("no answer was written")
            what = f"The model of line {self.name} failed: {reason(error)}"
            self._refuse(request, Refusal(500, "G707", what))
        else:
            self._metrics.answered("infer", 200)
            answer = job.answer
            request.respond(200, answer.body, kind=answer.kind, fields=answer.fields)

    def _expired(self, lane: Lane, job: Job) -> None:
        request, job.request = job.request, None
        latency_s = time.perf_counter() - job.received
        service = self._by_lane[lane]
        service.interval.give_up(job, latency_s)
        service.metrics.give_up(job, latency_s)
        self._metrics.shed("deadline")
        if request is not None:
            what = f"Line {self.name} gave no answer within {self._limits.deadline_s} s."
            self._refuse(request, Refusal(504, "G706", what))

    def _refuse(self, request: Request, refusal: Refusal) -> None:
        self._metrics.answered("infer", refusal.status)
        request.respond(refusal.status, (refusal.body(),), fields=refusal.fields)
