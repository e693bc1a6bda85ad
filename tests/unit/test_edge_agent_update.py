"""An update over HTTP: what is fetched, and what becomes of servers that cut, stall or lie."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from genba.core import io
from genba.core.codec import encode
from genba.core.problem import Problem
from genba.edge.agent.factory import Factory
from genba.edge.agent.fetching import Limits
from genba.edge.agent.listing import Listing, encode_listing, piece_of, read_listing
from genba.edge.agent.opening import open_slot
from genba.edge.agent.runner import Agent
from genba.edge.agent.slots import Incoming
from genba.testing.crash import FullDisk
from tests.unit.edge_agents import (
    QUICK,
    Odd,
    Plant,
    copy_plant,
    device,
    make_plant,
    publish_next,
    serving,
    up_to_date,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def both(made: Plant, tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """A factory with two releases published."""
    plant = copy_plant(made, tmp_path_factory.mktemp("both"))
    publish_next(plant, 2)
    return plant


def code_of(agent: Agent) -> str:
    try:
        agent.ask()
        agent.work()
    except Problem as problem:
        return problem.code
    return "none"


def answers(agent: Agent) -> bool:
    """Whether what is in service opens, every byte verified."""
    active = agent.state.active
    assert active is not None
    release = open_slot(agent.state_dir, active, "pump", agent.time.now_ms())
    return release.statement.release == active.release


def largest(plant: Plant) -> tuple[str, int]:
    sizes = {p.name: p.stat().st_size for p in (plant.home / "edge/objects").iterdir()}
    return max(sizes.items(), key=lambda item: item[1])


def test_only_what_is_new_is_fetched(made: Plant, tmp_path: Path) -> None:
    plant = copy_plant(made, tmp_path)
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        assert up_to_date(agent) == 1
        assert agent.factory is not None
        first = agent.factory.received
        publish_next(plant, 2)
        agent.ask()
        state = agent.work()
        assert state.candidate is not None
        assert (state.candidate.release, state.candidate.phase) == (2, "shadow")
        assert agent.factory.received - first < first / 10
        assert answers(agent)
        assert not list((agent.folder / "incoming").iterdir())
        asked = len(server.asked)
        agent.ask()
        agent.work()
        assert not [path for path in server.asked[asked:] if path.startswith("objects/")][1:]


def test_a_download_that_is_cut_goes_on_where_it_stopped(made: Plant, tmp_path: Path) -> None:
    name, size = largest(made)
    cut = threading.Event()

    def wrong(odd: Odd, path: str, data: bytes) -> bytes | None:
        if path == f"objects/{name}" and not cut.is_set():
            cut.set()
            odd.cut(data[: size // 2], size)
            return None
        return data

    with serving(made, wrong) as server:
        agent = device(made, tmp_path, server.url)
        assert code_of(agent) == "G680"
        assert cut.is_set()
        assert agent.state.active is None
        assert agent.factory is not None
        before = agent.factory.received
        again = Agent(tmp_path, agent.enrolment, tester=agent._tester, factory=agent.factory)
        state = again.work()
        assert state.active is not None
        listing = again.stock.slots.listing(state.active.slot)
        assert listing is not None
        rest = listing.size_bytes - before + size  # at most; what came before was not asked again
        assert agent.factory.received - before < rest - size // 3
        assert answers(again)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("altered", "G685"), ("longer", "G685"), ("slow", "G680"), ("missing", "G680")],
)
def test_a_server_that_does_wrong(made: Plant, tmp_path: Path, kind: str, code: str) -> None:
    name, size = largest(made)
    honest = threading.Event()

    def wrong(odd: Odd, path: str, data: bytes) -> bytes | None:
        if path != f"objects/{name}" or honest.is_set():
            return data
        if kind == "altered":
            return data[:-1] + bytes([data[-1] ^ 1])
        if kind == "longer":
            odd.answer(200, data + b"more")
        elif kind == "slow":
            odd.trickle(data[:400], 0.01)
        else:
            odd.answer(404, b"no")
        return None

    with serving(made, wrong) as server:
        agent = device(made, tmp_path, server.url)
        assert code_of(agent) == code
        assert agent.state.active is None
        assert agent.state.refused == (), "a bad server is no reason to refuse a release"
        honest.set()
        assert up_to_date(agent) == 1
        assert answers(agent)


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_is_gone_or_silent(made: Plant, tmp_path: Path) -> None:
    with serving(made) as server:
        agent = device(made, tmp_path, server.url)
        assert up_to_date(agent) == 1
    assert code_of(agent) == "G680"
    with silent() as url:
        agent.factory = Factory(url, patience=replace(QUICK, silent_s=0.05))
        assert code_of(agent) == "G680"
    assert answers(agent)


@pytest.mark.parametrize("url", ["ftp://here", "nowhere", "http://"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(Problem, match="G687"):
        Factory(url)


def test_a_release_that_is_too_large(made: Plant, tmp_path: Path) -> None:
    with serving(made) as server:
        agent = device(made, tmp_path, server.url)
        for limits in (Limits(most_bytes=1_000), Limits(keep_free_bytes=1 << 60)):
            agent._limits = limits
            assert code_of(agent) == "G686"
        assert not [path for path in server.asked if path.endswith(largest(made)[0])]
        agent._limits = Limits()
        assert up_to_date(agent) == 1


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_moment(both: Plant, tmp_path: Path) -> None:
    """At some of the effects here; at every one in tests/chaos."""
    with serving(both) as server:
        points = (2, 9, 40)
        given = None
        for point in points:
            state = tmp_path / str(point)
            agent = device(both, state, server.url, given=given)
            given = agent.enrolment
            disk = FullDisk(point)
            with io.using(disk):
                code = code_of(agent)
            assert code in ("G303", "none")
            assert disk.was_full == (code == "G303")
            again = device(both, state, server.url, given=given)
            assert up_to_date(again) == 2, "the first release of a device goes into service"
            assert answers(again)


def test_a_list_that_names_what_it_must_not() -> None:
    piece = piece_of(b"x")
    for path in ("../x", "/x", "a/../x", "a/b/c/d", ".hidden", "a//b", ""):
        data = encode_listing(Listing(line="pump", release=1, files={path: (piece,)}))
        with pytest.raises(Problem, match="G685"):
            read_listing(data)
    for data in (b"", b"[]", b'{"format":1}', b"{"):
        with pytest.raises(Problem, match="G685"):
            read_listing(data)
    clash = Listing(line="pump", release=1, files={"a": (piece,), "a/b": (piece,)})
    with pytest.raises(Problem, match="G685"):
        read_listing(encode_listing(clash))
    newer = encode(Listing(line="pump", release=1, files={"a": (piece,)})) | {"format": 2}
    with pytest.raises(Problem, match="G603"):
        read_listing(json.dumps(newer).encode())


def test_segments_with_a_gap_do_not_count(tmp_path: Path) -> None:
    data = bytes(range(100))
    piece = piece_of(data)
    incoming = Incoming(tmp_path / "incoming")
    incoming.add(piece, 0, data[:40])
    incoming.add(piece, 60, data[60:])
    assert incoming.have(piece) == 40
    incoming.add(piece, 40, data[40:60])
    assert incoming.have(piece) == 100
    assert incoming.read(piece) == data
    incoming.drop(piece)
    assert incoming.have(piece) == 0
