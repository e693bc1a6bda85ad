"""A line with a real event loop, real threads and a real server: swaps under load lose nothing."""

import asyncio
import json
import random
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from genba.core.rollout import Placed, Rollout
from genba.serve.client import Client
from genba.serve.http.responses import Refusal
from genba.serve.lanes.desk import Floor, Numbers
from genba.serve.lanes.lines import LineService
from genba.serve.lanes.placement import Placement
from genba.serve.lanes.pool import Pool, cores
from genba.serve.limits import Limits
from genba.serve.watch.metrics import Metrics
from genba.store.home import Store
from genba.testing.lanes import Doubler, Heard, numbers
from genba.testing.serving import faulty_engine, place, serve_here, small_package, until

LIMITS = Limits(queue_rows=100_000, threads=3, stuck_s=0.1, spare_threads=2)
CALLS = 1_500


def floor_here(pool: Pool, limits: Limits = LIMITS, **more: Any) -> Floor:
    recorder: Any = SimpleNamespace(admit=lambda part: True, hand_over=lambda batch: None)
    return Floor(
        pool=pool,
        limits=limits,
        numbers=Numbers("s"),
        recorder=recorder,
        metrics=Metrics(5.0),
        **more,
    )


def placed(package: str, share: float = 1.0) -> Placed:
    return Placed(package=package, share=share, since_seq=1, since_ms=1)


def test_swaps_under_load_with_threads() -> None:
    """Slow, fast, failing and hanging packages take turns; every call is told exactly once."""
    hang = threading.Event()

    async def scenario() -> None:
        pool = Pool(asyncio.get_running_loop(), LIMITS)
        line = LineService("pump", floor_here(pool))
        rng = random.Random(1)
        calls: list[Heard] = []
        models = {
            "fast": Doubler("fast"),
            "slow": Doubler("slow", 0.002, lambda: time.sleep(0.002), runners=2),
            "hung": Doubler("hung", 0.002, lambda: hang.wait(20)),
        }

        def swap(count: int) -> None:
            stable, canary = [("fast", "slow"), ("slow", "hung"), ("slow", "fast")][count % 3]
            condemned = frozenset({"hung"}) if canary == "fast" else frozenset()
            rollout = Rollout(
                stable=placed(stable), canary=placed(canary, 0.3), condemned=condemned
            )
            loaded: Any = models
            line.place(Placement(line="pump", rollout=rollout, models=loaded))

        swap(0)
        for count in range(CALLS):
            calls.append(Heard(10.0))
            line.ask(calls[-1], None, lambda schema: numbers([rng.random()]))
            if rng.random() < 0.02:
                await asyncio.sleep(0)
            if count % 100 == 99:
                await asyncio.sleep(0.002)
                line.expire(time.perf_counter())
                swap(count // 100)
        swap(2)  # what the hung package still has is asked again
        while line.busy:
            await asyncio.sleep(0.002)
            line.expire(time.perf_counter())
        assert all(len(call.told) == 1 for call in calls)
        said = {call.said for call in calls}
        assert said <= {"fast", "slow", "hung", "G742"}
        assert {"fast", "slow"} <= said
        refused = sum(isinstance(call.told[0], Refusal) for call in calls)
        assert refused < CALLS // 2
        assert len(models["slow"].threads | models["hung"].threads) <= 5
        hang.set()
        line.place(Placement(line="pump", rollout=Rollout(), models={}))
        while not all(model.closed for model in models.values()):
            await asyncio.sleep(0.002)
        assert [model.closed for model in models.values()] == [1, 1, 1]
        pool.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_hung_package_leaves_threads_to_the_others() -> None:
    hang = threading.Event()

    async def scenario() -> None:
        limits = Limits(threads=2, stuck_s=0.05)
        pool = Pool(asyncio.get_running_loop(), limits)
        lines = []
        for name, wait in (("bad", lambda: hang.wait(20)), ("good", lambda: time.sleep(0.002))):
            line = LineService(name, floor_here(pool, limits))
            model: Any = Doubler(name, 0.002, wait, runners=4)
            rollout = Rollout(stable=placed(name))
            line.place(Placement(line=name, rollout=rollout, models={name: model}))
            lines.append(line)
        calls = [Heard() for _ in range(20)]
        for call in calls:
            lines[0].ask(call, None, lambda schema: numbers([1.0]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert pool.running == 1  # one thread is kept for the others
        answered = Heard()
        lines[1].ask(answered, None, lambda schema: numbers([1.0]))
        while not answered.told:
            await asyncio.sleep(0.001)
        assert answered.said == "good"
        await asyncio.sleep(0.1)
        lines[0].expire(time.perf_counter())
        assert pool.lost == 1
        assert {call.said for call in calls[1:]} == {"G742"}
        assert lines[0].admit(None, 4, time.perf_counter() + 5) is not None
        tallies = lines[0].cut(1.0)
        assert tallies is not None
        tally, _ = tallies.tallies["bad"]
        assert tally.errors == tally.n >= 20  # so that it is rolled back
        hang.set()
        while lines[0].busy or pool.lost:
            await asyncio.sleep(0.001)
        assert lines[0].admit(None, 4, time.perf_counter() + 5) is None
        pool.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_package_that_sleeps_is_woken_and_asked() -> None:
    async def scenario() -> None:
        woken: list[tuple[str, str]] = []
        pool = Pool(asyncio.get_running_loop(), LIMITS)
        limits = Limits(queue_rows=2)
        floor = floor_here(pool, limits, wake=lambda *names: woken.append(names))
        line = LineService("pump", floor)
        rollout = Rollout(stable=placed("p"))
        line.place(Placement(line="pump", rollout=rollout, models={}, asleep=frozenset({"p"})))
        assert line.ready
        assert line.asleep == {"p"}
        calls = [Heard(0.5), Heard(60), Heard()]
        for call in calls:
            line.ask(call, None, lambda schema: numbers([1.0]))
        assert woken == [("pump", "p")] * 2
        assert calls[2].said == "G741"  # no more than two may wait
        assert line.busy
        line.expire(time.perf_counter() + 1)
        assert calls[0].said == "G741"
        model: Any = Doubler("p")
        line.place(Placement(line="pump", rollout=rollout, models={"p": model}))
        await asyncio.sleep(0)
        assert calls[1].said == "p"
        assert line.last_used["p"] > 0
        pool.close()

    asyncio.run(scenario())


def test_there_are_as_many_threads_as_cores_however_many_packages() -> None:
    async def scenario() -> None:
        limits = Limits()
        pool = Pool(asyncio.get_running_loop(), limits)
        models = [Doubler(str(n), 0.002, lambda: time.sleep(0.0005)) for n in range(60)]
        calls = []
        for model in models:
            line = LineService(model.package, floor_here(pool, limits))
            loaded: Any = {model.package: model}
            rollout = Rollout(stable=placed(model.package))
            line.place(Placement(line=model.package, rollout=rollout, models=loaded))
            calls.append(Heard())
            line.ask(calls[-1], None, lambda schema: numbers([1.0]))
        while not all(call.told for call in calls):
            await asyncio.sleep(0.001)
        assert {call.said for call in calls} == {model.package for model in models}
        assert len(set().union(*(model.threads for model in models))) <= cores() + 1
        pool.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_pipelined_answers_come_in_order_while_packages_change(home: Path) -> None:
    """Half of the requests go to a package on a thread, the others are answered at once."""
    store = Store.open(home)
    fast = small_package(store, "pump")
    slow = small_package(store, "pump", seed=1, engine=faulty_engine(delay_ms=3))
    place(store, "pump", "deploy", fast)
    place(store, "pump", "canary", slow, share=0.5)

    def script(client: Client) -> None:
        until(lambda: client.line("pump")["canary"] is not None)
        port = int(client.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            reader = connection.makefile("rb")
            for start in range(0, 160, 40):
                connection.sendall(b"".join(asked(n) for n in range(start, start + 40)))
                if start == 80:
                    place(store, "pump", "roll_back", slow)
                answers = [read(reader) for _ in range(40)]
                assert [answer["id"] for answer in answers] == [
                    str(n) for n in range(start, start + 40)
                ]
                seen.update(answer["parameters"]["package"] for answer in answers)

    seen: set[str] = set()
    serve_here(home, script, limits=Limits(poll_s=0.01))
    assert seen == {fast, slow}


def asked(number: int) -> bytes:
    window = {"name": "window", "datatype": "FP32", "shape": [1, 3, 4], "data": [0.5] * 12}
    body = json.dumps({"id": str(number), "inputs": [window]}).encode()
    return (
        b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def read(reader: Any) -> Any:
    assert reader.readline().startswith(b"HTTP/1.1 200")
    length = 0
    while (field := reader.readline().strip()) != b"":
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(reader.read(length))
