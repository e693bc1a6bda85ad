"""One line in service: its packages in their roles, and the way of a request to one of them."""

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

from genba.core.rollout import Placed, Rollout
from genba.core.values import Role
from genba.serve.http.request import Request
from genba.serve.http.responses import Refusal
from genba.serve.lanes import admission
from genba.serve.lanes.calls import Call
from genba.serve.lanes.desk import Desk, Floor
from genba.serve.lanes.jobs import Job
from genba.serve.lanes.placement import Placement
from genba.serve.lanes.router import Routes
from genba.serve.lanes.service import Service, Sleeper, describe_rollout, together
from genba.serve.oip import requests as oip
from genba.serve.oip.images import is_file
from genba.serve.oip.inputs import Bounds, Inputs
from genba.serve.oip.schema import Schema, describe_model
from genba.serve.watch.capture import Batch, Tally, now_ms

Chosen = Service | Sleeper


class LineService:
    """Serves one line. Belongs to the event loop.

    Args:
        name: Of the line.
        floor: What it shares with the other lines of the server.
    """

    def __init__(self, name: str, floor: Floor) -> None:
        self.name = name
        self.rollout = Rollout()
        self.failed: Mapping[str, str] = {}
        self.asleep: frozenset[str] = frozenset()
        self._floor = floor
        self._desk = Desk(name, floor)
        self._limits = floor.limits
        self._bounds = Bounds(floor.limits.request_rows)
        self._routes: Routes[Chosen] = Routes()
        self._services: dict[str, Service] = {}
        self._sleepers: dict[str, Sleeper] = {}
        self._retiring: list[Service] = []
        self._requests = 0
        self._parsing = 0  # requests that are read on a thread
        self._since_ms = now_ms()

    @property
    def ready(self) -> bool:
        """Whether the line can answer, if need be after it has loaded what sleeps."""
        return self._routes.stable is not None

    @property
    def inline(self) -> bool:
        """Whether its stable package computes within the event loop."""
        stable = self._routes.stable
        return isinstance(stable, Service) and stable.lane.inline

    @property
    def busy(self) -> bool:
        """Whether a request is still being worked on."""
        held = any(sleeper.waiting for sleeper in self._sleepers.values())
        return self._parsing > 0 or held or any(service.lane.owes for service in self._all())

    @property
    def last_used(self) -> Mapping[str, float]:
        """When the packages in memory last computed, by the monotonic clock; 0 for never.

        May be asked on any thread.
        """
        return {package: service.used_s for package, service in list(self._services.items())}

    def place(self, placement: Placement) -> None:
        """Put packages into their roles, between two requests; nothing is interrupted.

        Lanes that are no longer needed finish what they have and are closed then. From here on
        nothing is answered by a package that is condemned: what it has not answered yet is asked
        again of the stable package.
        """
        for package, model in placement.models.items():
            if package in self._services and self._services[package].model is not model:
                self._let_go(package)
            if package not in self._services:
                self._services[package] = Service(model, self._desk)
        for package in self._services.keys() - placement.models.keys():
            self._let_go(package)
        for package, service in self._services.items():
            service.tune(placement.parameters.get(package, {}))
        self.rollout, self.failed = placement.rollout, placement.failed
        sleepers, self._sleepers = self._sleepers, {}
        self.asleep = placement.asleep - self._services.keys()
        for package in self.asleep:
            self._sleepers[package] = Sleeper(package, self._desk)
        self._routes = self._routed(placement.rollout)
        self._call_back()
        for sleeper in sleepers.values():
            sleeper.release()

    def infer(self, request: Request, version: str | None) -> None:
        """Check a request and send it to the package whose turn it is.

        Raises:
            Refusal: 400 for a malformed request, 404 for a version that does not answer, 503 when
                nothing is loaded.
        """
        chosen, role = self._choose(version)
        if not isinstance(chosen, Service):
            self._hold(chosen, request, functools.partial(self.infer, request, version))
            return
        if chosen.model.talks is not None and request.plan.deadline_s is None:
            request.deadline = request.received + self._limits.talk_s
        read = self._reader(request, chosen.model.schema)
        size = oip.json_size(request.body, request.headers.get(oip.HEAD_LENGTH))
        if size <= self._limits.parse_bytes:
            inputs = read()
            request.body = b""  # what is needed of it is in the inputs
            self._submit(request, inputs, chosen, role, pinned=version is not None)
            return
        refusal = chosen.refusal(1, request.size, request.deadline, role, urgent=request.urgent)
        if refusal is not None:
            self._desk.refuse(request, refusal)
            return
        self._parsing += 1
        future = self._floor.pool.loop.run_in_executor(None, read)
        future.add_done_callback(functools.partial(self._parsed, request, version, chosen, role))

    def ask(self, call: Call, version: str | None, read: Callable[[Schema], Inputs]) -> None:
        """Check a question that came by another protocol than HTTP, and send it on its way.

        Args:
            call: Who asks.
            version: Package that shall answer, None for whose turn it is.
            read: Reads the inputs for the package that was chosen; called at once, or when it
                is awake.

        Raises:
            Refusal: What `read` raises; 404 for a version that does not answer, 503 when nothing
                is loaded.
        """
        chosen, role = self._choose(version)
        if isinstance(chosen, Service):
            inputs = read(chosen.model.schema)
            self._submit(call, inputs, chosen, role, pinned=version is not None)
        else:
            self._hold(chosen, call, functools.partial(self.ask, call, version, read))

    def admit(
        self, version: str | None, size: int, deadline: float, *, urgent: bool = True
    ) -> Refusal | None:
        """Say, before its body is read, whether a request would be refused now.

        The refusal stands for many: give it to the call, do not raise it. A request that passes
        is looked at again when it is complete.

        Args:
            version: Package that shall answer, None for whose turn it is.
            size: Bytes of the body.
            deadline: When an answer is worth nothing any more (`time.perf_counter`).
            urgent: Whether somebody waits for the answer.

        Raises:
            Refusal: 404 for a version that does not answer, 503 when nothing is loaded.
        """
        chosen, role = self._choose(version, count=False)
        return chosen.refusal(1, size, deadline, role, urgent=urgent)

    def bounds(self, schema: Schema) -> Bounds:
        """Return how much one request to a package may hold."""
        if schema.image is None:
            return self._bounds
        sizes = {service.model.schema.size for service in self._services.values()}
        return Bounds(self._limits.request_images, sizes)

    def metadata(self, version: str | None) -> dict[str, Any]:
        """Return the answer to GET /v2/models/{line}.

        Raises:
            Refusal: 404 for a version that does not answer, 503 for one that sleeps; it is woken.
        """
        chosen, _ = self._choose(version, count=False)
        if not isinstance(chosen, Service):
            chosen.wake()
            raise Refusal(503, "G741", admission.asleep(self.name).what, b"Retry-After: 1\r\n")
        return describe_model(self.name, self.answering, chosen.model.manifest, chosen.parameters)

    @property
    def answering(self) -> list[str]:
        """The packages that answer, the stable one first."""
        return [one.package for one, _ in self._answering()]

    def services(self) -> list[tuple[str, Role, Service]]:
        """Return the packages that answer and are in memory."""
        found = self._answering()
        return [(one.package, role, one) for one, role in found if isinstance(one, Service)]

    def describe(self) -> dict[str, Any]:
        """Return rollout, versions and counts as JSON."""
        return {
            "line": self.name,
            "ready": self.ready,
            **describe_rollout(self.rollout),
            "failed": dict(self.failed),
            "asleep": sorted(self.asleep),
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
        for sleeper in self._sleepers.values():
            sleeper.expire(now)

    def close(self) -> None:
        """End the language models; nobody is waiting for them any more."""
        for service in self._all():
            service.close()

    def computed_s(self) -> float:
        """Return the seconds of computing since the last `cut`."""
        return sum(service.settle() for service in self._all())

    def cut(self, cpu_per_compute_s: float) -> Batch | None:
        """Return what was answered since the last cut and start a new interval.

        Args:
            cpu_per_compute_s: CPU seconds of the whole process per second of computing, so that a
                package is charged with its share of the server too.
        """
        until = now_ms()
        tallies: dict[str, tuple[Tally, float]] = {}
        for service in self._all():
            cut = service.cut(cpu_per_compute_s)
            if cut is not None:
                before = tallies.get(service.package)  # of the same package, loaded anew since
                tallies[service.package] = together(before, *cut)
        self._retiring = [service for service in self._retiring if not service.lane.idle]
        since, self._since_ms = self._since_ms, until
        return self._desk.cut(since, until, tallies)

    # Helpers.

    def _reader(self, request: Request, wanted: Schema) -> Callable[[], Inputs]:
        """Return what reads a request; it may be called on any thread."""
        length = request.headers.get(oip.HEAD_LENGTH)
        kind = request.headers.get(b"content-type", b"")
        if wanted.image is not None and is_file(request.body, kind, length):
            return functools.partial(oip.read_image, request.body, request.target, wanted)
        bounds = self.bounds(wanted)
        return functools.partial(oip.read_request, request.body, length, wanted, bounds)

    def _parsed(
        self,
        request: Request,
        version: str | None,
        service: Service,
        role: Role,
        future: asyncio.Future[Inputs],
    ) -> None:
        """Go on with a request that was read on a thread."""
        self._parsing -= 1

        def go_on() -> None:
            if service.retired or service not in (self._routes.stable, self._routes.canary):
                # Its package was exchanged meanwhile; another may read it otherwise.
                self.infer(request, version)
                return
            inputs = future.result()
            request.body = b""
            self._submit(request, inputs, service, role, pinned=version is not None)

        self._desk.attempt(request, go_on)

    def _submit(
        self, call: Call, inputs: Inputs, service: Service, role: Role, *, pinned: bool
    ) -> None:
        rows = inputs.rows
        if inputs.said:  # in the request itself, not in its header
            call.deadline = min(call.deadline, call.received + inputs.timeout_s)
            call.urgent = call.urgent and inputs.urgent
        tokens = inputs.speech.tokens if inputs.speech is not None else 0
        refusal = service.refusal(
            rows, call.size, call.deadline, role, urgent=call.urgent, tokens=tokens
        )
        if refusal is not None:
            self._desk.refuse(call, refusal)
            return
        job = Job(call, inputs, self._floor.numbers.take(rows), role, pinned=pinned)
        service.lane.submit(job)
        if self._routes.shadow is not None:
            self._shadow(self._routes.shadow, job, service.model.schema)

    def _shadow(self, shadow: Chosen, job: Job, ours: Schema) -> None:
        """Show the shadow the same request; under load the shadow is the first to go without."""
        if not isinstance(shadow, Service):
            shadow.wake()
            self._desk.shed("shadow")
        elif shadow.lane.has_room(2 * job.rows, 2 * job.size):
            shadow.lane.submit(job.shadow(job.tensors_for(shadow.model.schema, ours)))
        else:
            self._desk.shed("shadow")

    def _hold(self, sleeper: Sleeper, call: Call, again: Callable[[], None]) -> None:
        refusal = sleeper.refusal(1, call.size, call.deadline, "stable", urgent=call.urgent)
        if refusal is None:
            sleeper.hold(call, again)
        else:
            self._desk.refuse(call, refusal)

    def _call_back(self) -> None:
        """Ask again what condemned packages have not answered."""
        condemned = self.rollout.condemned.difference(self.rollout.packages)
        for service in self._all():
            if service.package not in condemned:
                continue
            for job in service.lane.condemn():
                call, job.call = job.call, None
                if call is not None:  # nobody waits for what a shadow says
                    again = functools.partial(self._again, call, job, service.model.schema)
                    self._desk.attempt(call, again)

    def _again(self, call: Call, job: Job, ours: Schema) -> None:
        """Ask the stable package what a condemned one has not answered; once."""
        stable = self._routes.stable
        if job.pinned:
            raise admission.no_version(self.name, self.answering, "that was asked for")
        if job.moved:
            self._desk.refuse(call, admission.rolled_back(self.name))
        elif stable is None:
            raise admission.nothing(self.name)
        elif not isinstance(stable, Service):
            self._hold(stable, call, functools.partial(self._again, call, job, ours))
        elif not stable.lane.has_room(job.rows, job.size):
            self._desk.shed("queue")
            self._desk.refuse(call, admission.full(self.name))
        else:
            first = self._floor.numbers.take(job.rows)
            copy = job.copy("stable", first, job.tensors_for(stable.model.schema, ours))
            copy.call, copy.moved = call, True
            stable.lane.submit(copy)

    def _let_go(self, package: str) -> None:
        service = self._services.pop(package)
        service.retired = True
        self._retiring.append(service)
        service.lane.retire()

    def _routed(self, rollout: Rollout) -> Routes[Chosen]:
        stable, canary = self._chosen(rollout.stable), self._chosen(rollout.canary)
        shadow = self._chosen(rollout.shadow)
        return Routes(
            stable=stable,
            canary=canary,
            share=rollout.canary.share if rollout.canary else 0.0,
            # Whoever answers already is judged by that, and need not see requests twice.
            shadow=None if shadow in (stable, canary) else shadow,
            salt=rollout.canary.since_seq if rollout.canary else 0,
        )

    def _chosen(self, placed: Placed | None) -> Chosen | None:
        if placed is None:
            return None
        return self._services.get(placed.package) or self._sleepers.get(placed.package)

    def _all(self) -> list[Service]:
        return [*self._services.values(), *self._retiring]

    def _answering(self) -> list[tuple[Chosen, Role]]:
        stable, canary = self._routes.stable, self._routes.canary
        answering: list[tuple[Chosen, Role]] = [] if stable is None else [(stable, "stable")]
        return answering if canary is None else [*answering, (canary, "canary")]

    def _choose(self, version: str | None, *, count: bool = True) -> tuple[Chosen, Role]:
        if version is not None:
            for chosen, role in self._answering():
                if chosen.package == version:
                    return chosen, role
            raise admission.no_version(self.name, self.answering, repr(version))
        routes = self._routes
        if routes.stable is None:
            raise admission.nothing(self.name)
        if routes.canary is None:
            return routes.stable, "stable"
        self._requests += count
        return routes.choose(self._requests) or (routes.stable, "stable")
