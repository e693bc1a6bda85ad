"""Packages that crash, hang, raise, answer nonsense or leak: real servers, and the controller.

Each takes nothing down but itself, and the controller takes it out of service.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from genba.core.codec import encode
from genba.core.line import Data, Line, RollBackOn, Rollout
from genba.core.problem import Problem
from genba.core.rollout import fold
from genba.loop.runner import Runner
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.stages.deploy import deploy
from genba.store.home import Store
from genba.testing.graphs import small_batch
from genba.testing.serving import (
    RunningServer,
    faulty_engine,
    running_server,
    serve_here,
    small_package,
    until,
)

FEW: Final = small_batch(3)
QUICK: Final = Limits(
    poll_s=0.01, capture_s=0.05, sweep_s=0.02, trial_s=10.0, deadline_s=0.4, hang_s=1.5
)
HASTY: Final = """
import sys
from pathlib import Path
from genba.serve.limits import Limits
from genba.serve.server import serve
from genba.serve.settings import Settings
serve(Settings(home=Path(sys.argv[2]), port=0, limits={limits!r}))
"""


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    line = Line(
        name="pump",
        task="sensor.anomaly",
        data=Data(source="files:pump.csv"),
        rollout=Rollout(
            decide="auto",
            decide_after=1_000_000,  # a test ends before anybody is judged by how it answers
            roll_back_on=RollBackOn(latency_ms_p99=10_000),
        ),
    )
    with Store.open(home) as opened:
        opened.ledger.record("line", "line-1", encode(line), line="pump")
        yield opened


def put(store: Store, action: Any, package: str) -> None:
    share = 0.5 if action == "canary" else 0.0
    deploy(store, "pump", action, package, share=share, reason="a test", by="a test")


def production(store: Store) -> Any:
    return fold(store.ledger.events(line="pump", kinds=("deploy",)))


def hasty_server(home: Path, **limits: Any) -> Any:
    """A server in a process of its own, with limits that do not make a test wait."""
    return running_server(home, command=("-c", HASTY.format(limits=replace(QUICK, **limits))))


def asked(client: Client) -> str:
    """Ask once; return the package that answered, or the code of what came instead."""
    try:
        return client.infer("pump", FEW).package
    except Problem as problem:
        return problem.code


def controlled(store: Store, client: Client, ends: Any, ask: bool = True) -> set[str]:
    """Ask and let the controller look, until something is true; return who answered what."""
    answers: set[str] = set()

    def step() -> bool:
        if ask:
            answers.add(asked(client))
        runner.tick()
        return bool(ends())

    with Runner(store) as runner:
        until(step)
    return answers


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"signal": 11}, "G775"),
        pytest.param({"signal": 6}, "G775", marks=pytest.mark.slow),
        pytest.param({"leak_bytes": 200_000}, "G777", marks=pytest.mark.slow),
        pytest.param({"wrong_shape": True}, "G707", marks=pytest.mark.slow),
        pytest.param({"error": True}, "G707", marks=pytest.mark.slow),
        pytest.param({"hang": True}, "G776", marks=pytest.mark.slow),
    ],
)
def test_a_canary_that_fails_its_trial_never_answers(
    home: Path, store: Store, fault: dict[str, Any], code: str
) -> None:
    good = small_package(store, "pump")
    bad = small_package(store, "pump", seed=1, engine=faulty_engine(**fault))
    put(store, "deploy", good)

    def script(client: Client) -> None:
        put(store, "canary", bad)
        answers = controlled(store, client, lambda: bad in production(store).condemned)
        assert answers == {good}

    limits = Limits(poll_s=0.01, trial_s=1.0 if code == "G776" else 30.0)
    serve_here(home, script, limits=limits, guarded=True)
    (failed,) = store.ledger.events(kinds=["serve.load_failed"])
    assert failed.body["code"] == code


@pytest.mark.parametrize("fault", [{"not_a_number": True}, {"error": True}, {"wrong_shape": True}])
def test_a_canary_that_goes_wrong_in_service_is_withdrawn(
    home: Path, store: Store, tmp_path: Path, fault: dict[str, Any]
) -> None:
    switch = tmp_path / "switch"
    good = small_package(store, "pump")
    engine = faulty_engine(switch=str(switch), **fault)
    bad = small_package(store, "pump", seed=1, engine=engine)
    put(store, "deploy", good)
    put(store, "canary", bad)

    def script(client: Client) -> None:
        until(lambda: {asked(client) for _ in range(20)} == {good, bad})
        switch.touch()
        controlled(store, client, lambda: bad in production(store).condemned)
        until(lambda: client.line("pump")["canary"] is None)
        assert {asked(client) for _ in range(20)} == {good}

    serve_here(home, script, limits=QUICK)


def died(server: RunningServer, client: Client, switch: Path) -> int:
    """Have a package do its worst, and return how the server ended."""
    switch.touch()
    until(lambda: bool(asked(client)) and server.process.poll() is not None)
    switch.unlink()
    return server.process.wait()


@pytest.mark.parametrize(
    ("fault", "ended", "how"),
    [
        ({"signal": 11}, -11, "Segmentation fault"),
        pytest.param({"hang": True}, 1, "it did not come back", marks=pytest.mark.slow),
    ],
)
def test_a_canary_that_takes_the_server_down_does_it_once(
    home: Path, store: Store, tmp_path: Path, fault: dict[str, Any], ended: int, how: str
) -> None:
    switch = tmp_path / "switch"
    good = small_package(store, "pump")
    engine = faulty_engine(switch=str(switch), **fault)
    bad = small_package(store, "pump", seed=1, engine=engine)
    put(store, "deploy", good)
    put(store, "canary", bad)
    with hasty_server(home) as server, server.client(timeout_s=5) as client:
        until(lambda: {asked(client) for _ in range(20)} == {good, bad})
        assert died(server, client, switch) == ended
    switch.touch()
    with hasty_server(home) as server, server.client() as client:
        assert {asked(client) for _ in range(20)} == {good}
        (crash,) = store.ledger.events(kinds=["serve.crashed"])
        assert (crash.subject, crash.body["how"], crash.body["alone"]) == (bad, how, True)
        controlled(store, client, lambda: bad in production(store).condemned)
    assert production(store).stable.package == good


@pytest.mark.slow
def test_a_stable_package_that_crashes_again_and_again_gives_way_to_the_one_before(
    home: Path, store: Store, tmp_path: Path
) -> None:
    switch = tmp_path / "switch"
    good = small_package(store, "pump")
    engine = faulty_engine(switch=str(switch), signal=11)
    bad = small_package(store, "pump", seed=1, engine=engine)
    put(store, "deploy", good)
    put(store, "canary", bad)
    put(store, "promote", bad)
    for _ in range(2):
        with hasty_server(home) as server, server.client() as client:
            assert asked(client) == bad  # once may be bad luck
            assert died(server, client, switch) == -11
    switch.touch()
    with hasty_server(home) as server, server.client() as client:
        assert {asked(client) for _ in range(5)} == {good}  # before anybody has decided anything
        controlled(store, client, lambda: bad in production(store).condemned)
        assert production(store).stable.package == good
        assert {asked(client) for _ in range(5)} == {good}


@pytest.mark.slow
def test_a_server_that_was_killed_blames_nobody(home: Path, store: Store, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    engine = faulty_engine(switch=str(switch), signal=9)
    package = small_package(store, "pump", engine=engine)
    put(store, "deploy", package)
    for _ in range(3):
        with hasty_server(home) as server, server.client() as client:
            assert asked(client) == package
            assert died(server, client, switch) == -9
    assert not store.ledger.events(kinds=["serve.crashed", "serve.load_failed"])


@pytest.mark.slow
def test_a_canary_that_hangs_on_its_thread_keeps_nobody_waiting(
    home: Path, store: Store, tmp_path: Path
) -> None:
    switch = tmp_path / "switch"
    good = small_package(store, "pump")
    engine = faulty_engine(switch=str(switch), hang=True)
    bad = small_package(store, "pump", seed=1, engine=engine)
    put(store, "deploy", good)
    put(store, "canary", bad)
    with (
        hasty_server(home, inline_s=0.0, stuck_s=0.2) as server,
        server.client(timeout_s=10) as client,
    ):
        until(lambda: {asked(client) for _ in range(20)} == {good, bad})
        switch.touch()
        answers = controlled(store, client, lambda: bad in production(store).condemned)
        assert good in answers
        until(lambda: {asked(client) for _ in range(20)} == {good})
        assert server.stop() == 0  # though a thread of it will never come back
    assert not store.ledger.events(kinds=["serve.crashed"])


@pytest.mark.slow
def test_a_leak_that_begins_in_service_is_found(home: Path, store: Store, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    good = small_package(store, "pump")
    engine = faulty_engine(switch=str(switch), leak_bytes=2_000_000)
    bad = small_package(store, "pump", seed=1, engine=engine)
    put(store, "deploy", good)
    put(store, "canary", bad)

    def script(client: Client) -> None:
        until(lambda: {asked(client) for _ in range(20)} == {good, bad})
        switch.touch()
        controlled(store, client, lambda: bad in production(store).condemned)
        until(lambda: {asked(client) for _ in range(20)} == {good})

    limits = Limits(poll_s=0.01, memory_bytes=300_000_000, suspect_s=0.2)
    serve_here(home, script, limits=limits, guarded=True)
    (failed,) = store.ledger.events(kinds=["serve.load_failed"])
    assert (failed.subject, failed.body["code"]) == (bad, "G777")
