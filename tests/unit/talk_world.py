"""A line of a language model in the hands of a test: clock, loop, threads and engine."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from genba.core.rollout import Placed, Rollout
from genba.core.talk import Ask, Piece, Said, Scored
from genba.core.values import EngineChoice, Manifest, Signature, Verdict
from genba.edge.texts import as_bytes
from genba.serve.http.responses import Refusal
from genba.serve.lanes.desk import Floor, Numbers
from genba.serve.lanes.jobs import Part
from genba.serve.lanes.lines import LineService
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.placement import Placement
from genba.serve.lanes.pool import Pool
from genba.serve.lanes.speech import Heard, Speech, Told, Wish
from genba.serve.lanes.talk import TalkLane
from genba.serve.limits import Limits
from genba.serve.oip.inputs import Inputs
from genba.serve.oip.schema import Schema
from genba.serve.watch.capture import Tally
from genba.serve.watch.metrics import Metrics
from genba.testing.clockwork import Loop
from genba.testing.speller import ByteVocabulary
from genba.testing.talking import SIGNATURE

END = 257


class Ticket:
    def __init__(self, ask: Ask, said: Said) -> None:
        self.ask, self._said = ask, said
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1

    def say(self, text: str, finish: Any = "", **more: Any) -> None:
        tokens = tuple(text.encode())
        logs = tuple(-0.5 for _ in tokens)
        self._said(Piece(tokens=tokens, log_probability=logs, finish=finish, **more))

    def piece(self, tokens: Any, finish: Any = "", *, log: float = 0.0) -> None:
        made = tuple(tokens)
        self._said(Piece(tokens=made, log_probability=(log,) * len(made), finish=finish))

    @property
    def prompt(self) -> str:
        return bytes(t for t in self.ask.tokens.tolist() if t < 256).decode()


class Talker:
    """A language model that says what the test makes it say."""

    name = "talker"
    vocabulary = ByteVocabulary()
    context = 1_000
    slots = 2

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.refuses: Exception | None = None
        self.closed = 0

    def ask(self, ask: Ask, said: Said) -> Ticket:
        if self.refuses is not None:
            raise self.refuses
        self.tickets.append(Ticket(ask, said))
        return self.tickets[-1]

    def score(self, tokens: Any, *, likeliest: int = 0, since: int = 1) -> Scored:
        del since
        logs = np.full(len(tokens), -1.0)
        best = tuple(((int(t), -1.0),) * bool(likeliest) for t in tokens)
        return Scored(log_probability=logs, likeliest=best)

    def run(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        rows = len(tensors["messages"])
        return {
            "answer": as_bytes(list(tensors["given"])),
            "log_probability": np.full(rows, -2.0, np.float32),
            "tokens": np.full((rows, 2), 3, np.int32),
            "by": as_bytes(["model"] * rows),
            "sources": as_bytes(["[]"] * rows),
        }

    def stats(self) -> Mapping[str, float]:
        return {"running": 0.0}

    def close(self) -> None:
        self.closed += 1


class Threads:
    """Threads whose work is done at once, or when the test says so."""

    def __init__(self) -> None:
        self.started = 0
        self.held: list[Callable[[], None]] | None = None

    def start(self) -> None:
        self.started += 1

    def put(self, work: Callable[[], None]) -> None:
        if self.held is None:
            work()
        else:
            self.held.append(work)

    def close(self) -> None:
        self.started = 0


class Client:
    """Who asks, and hears the answer."""

    trace = caller = parent = ""

    def __init__(self, now: float, deadline_s: float = 60.0, *, urgent: bool = True) -> None:
        self.received, self.deadline = now, now + deadline_s
        self.urgent, self.size, self.gone = urgent, 100, False
        self.heard: dict[int, str] = {}
        self.told: Sequence[Told] = ()
        self.got: Any = None
        self.listens = True

    @property
    def spoken(self) -> bool:
        return self.listens and bool(self.heard)

    def hears(self, row: int, heard: Heard, parameters: Mapping[str, str]) -> None:
        self.heard[row] = self.heard.get(row, "") + heard.text
        self.by = parameters

    def ends(self, told: Sequence[Told]) -> None:
        self.told = told

    def write(self, schema: Any, wanted: Any, outputs: Any, **more: Any) -> Any:
        self.outputs = {name: array.tolist() for name, array in outputs.items()}
        return more["parameters"]["package"]

    def answer(self, written: Any) -> None:
        self.got = written

    def refuse(self, refusal: Refusal) -> None:
        self.got = refusal.code


def manifest(signature: Signature = SIGNATURE) -> Manifest:
    return Manifest(
        format=1, line="desk", task="language.chat", model="m", run="r", dataset="d",
        engine=EngineChoice(name="talker"), signature=signature, settings={}, entities=(),
        files={}, verdict=Verdict(passed=True),
    )  # fmt: skip


def placed(package: str) -> Placed:
    return Placed(package=package, share=1.0, since_seq=1, since_ms=1)


class World:
    def __init__(self, limits: Limits | None = None, engine: Any = None) -> None:
        self.now = 100.0
        self.loop = Loop()
        self.limits = limits or Limits()
        self.metrics = Metrics(5.0)
        recorder: Any = SimpleNamespace(admit=lambda *_: True, hand_over=lambda _: None)
        loop: Any = self.loop
        pool = Pool(loop, self.limits, Threads(), lambda: self.now)
        floor = Floor(
            pool=pool,
            limits=self.limits,
            numbers=Numbers("server"),
            recorder=recorder,
            metrics=self.metrics,
        )
        self.line = LineService("desk", floor)
        self.engines: dict[str, Any] = {}
        self.models: dict[str, LoadedModel] = {}
        self.threads: dict[str, Threads] = {}
        self.tallies: dict[str, Tally] = {}
        self.parts: list[Part] = []
        self.busy: list[bool] = []
        self.place("a", engine=engine)

    def place(
        self,
        stable: str,
        *,
        canary: str = "",
        shadow: str = "",
        condemned: Any = (),
        engine: Any = None,
    ) -> None:
        rollout = Rollout(
            stable=placed(stable) if stable else None,
            canary=placed(canary) if canary else None,
            shadow=placed(shadow) if shadow else None,
            condemned=frozenset(condemned),
        )
        for package in rollout.packages:
            if package not in self.models:
                self.engines[package] = engine or Talker()
                made = LoadedModel(package, manifest(), self.engines[package], self.limits)
                made.busy = self.busy.append
                self.models[package] = made
        models = {package: self.models[package] for package in rollout.packages}
        self.models = models
        self.line.place(Placement(line="desk", rollout=rollout, models=models))
        for package, service in self.line._services.items():
            if package not in self.threads:
                self.threads[package] = Threads()
                assert isinstance(service.lane, TalkLane)
                service.lane._errands._threads = self.threads[package]
        self.loop.run()

    @property
    def tickets(self) -> list[Ticket]:
        found: list[Ticket] = self.engines["a"].tickets
        return found

    @property
    def lane(self) -> TalkLane:
        lane = self.line._services["a"].lane
        assert isinstance(lane, TalkLane)
        return lane

    def ask(
        self, *wishes: Wish, version: str | None = None, client: Client | None = None, **more: Any
    ) -> Client:
        client = client or Client(self.now)
        tensors = more.pop("tensors", {})
        listener = client if client.listens else None

        def read(schema: Schema) -> Inputs:
            given = {"messages": as_bytes([b"?"] * len(wishes)), **tensors}
            wanted = schema.all_outputs("", binary=False)
            made = Inputs(given, len(wishes), entity_names=None, time=None, wanted=wanted)
            made.speech = Speech(wishes=wishes, listener=listener, **more)
            return made

        self.line.ask(client, version, read)
        self.loop.run()
        return client

    def say(self, ticket: Ticket, text: str, finish: Any = "", **more: Any) -> None:
        ticket.say(text, finish, **more)
        self.loop.run()

    def expire(self, seconds: float) -> None:
        self.now += seconds
        self.line.expire(self.now)
        self.loop.run()

    def cut(self) -> None:
        self.line.computed_s()
        batch = self.line.cut(1.0)
        if batch is not None:
            self.parts += batch.parts
            self.tallies |= {package: tally for package, (tally, _) in batch.tallies.items()}


def wish(text: str = "How high?", **more: Any) -> Wish:
    return Wish(words=[{"role": "user", "content": text}], **more)
