"""What is asked of Ray, with a stand-in for it; `tests/e2e/test_ray.py` asks a real cluster."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.serve.access.tls import Tls
from genba.serve.process.fleet import Fleet
from genba.serve.ray.replica import Replica
from genba.serve.settings import Settings
from genba.ui.cli.up_on import fleet_on

MODULE = "genba.serve.ray.cluster"


class Cluster(ModuleType):
    """Takes what Ray would be told, and says how the replicas are."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.trouble: dict[str, Exception] = {}
        self.running = 2
        self.connected = False

    def _do(self, what: str, **more: Any) -> None:
        self.told.append((what, more))
        if what in self.trouble:
            raise self.trouble[what]

    def init(self, **more: Any) -> None:
        self._do("init", **more)
        self.connected = True

    def is_initialized(self) -> bool:
        return self.connected

    def shutdown(self) -> None:
        self.connected = False

    def start(self, **more: Any) -> None:
        self._do("start", **more)

    def deployment(self, kind: type, **more: Any) -> Any:
        self._do("deployment", kind=kind, **more)
        return SimpleNamespace(bind=lambda *words, **named: (words, named))

    def run(self, bound: Any, **more: Any) -> None:
        self._do("run", bound=bound, **more)

    def delete(self, name: str) -> None:
        self._do("delete", name=name)

    def status(self) -> Any:
        states = {"RUNNING": self.running, "STARTING": 2 - self.running}
        deployed = SimpleNamespace(replica_states=states)
        one = SimpleNamespace(
            status=SimpleNamespace(value="DEPLOYING"), deployments={"genba": deployed}
        )
        return SimpleNamespace(applications={"genba": one} if self.connected else {})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster()
    made.serve = made  # type: ignore[attr-defined]  # a module and its part are one here
    responses = ModuleType("starlette.responses")
    responses.Response = dict  # type: ignore[attr-defined]  # as a module has it
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setitem(sys.modules, "ray.serve", made)
    monkeypatch.setitem(sys.modules, "starlette", ModuleType("starlette"))
    monkeypatch.setitem(sys.modules, "starlette.responses", responses)
    sys.modules.pop(MODULE, None)
    yield made
    sys.modules.pop(MODULE, None)


def fleet(settings: Settings, where: str = "ray") -> Fleet:
    importlib.import_module(MODULE)
    return fleet_on(where, settings, "2")


def test_replicas_are_asked_for_and_taken_away(cluster: Cluster, tmp_path: Path) -> None:
    made = fleet(Settings(home=tmp_path, port=0), "ray:head:6379")
    ready = made.start()
    told = dict(cluster.told)
    assert told["init"]["address"] == "head:6379"
    assert told["start"]["http_options"] == {"host": "127.0.0.1", "port": ready["port"]}
    assert made.settings.port == ready["port"] > 0
    assert [worker["server"] for worker in ready["workers"]] == [
        "replica 1 on Ray",
        "replica 2 on Ray",
    ]
    assert (told["deployment"]["kind"], told["deployment"]["num_replicas"]) == (Replica, 2)
    assert told["run"]["bound"] == ((str(tmp_path), 2, dict), {"behind_proxy": False})
    made.stop()
    assert cluster.told[-1][0] == "delete"
    assert not cluster.connected
    made.stop()


def test_trouble_is_told_when_it_begins_and_when_it_ends(cluster: Cluster, tmp_path: Path) -> None:
    made = fleet(Settings(home=tmp_path, port=1))
    made.start()
    assert made.look_after() is None
    cluster.running = 1
    assert made.look_after() == "on Ray: deploying, 1 replicas run"
    assert made.look_after() is None
    cluster.running = 2
    assert made.look_after() == "on Ray: running"
    assert made.restarts == 1
    cluster.connected = False
    assert made.look_after() == "on Ray: not_started, 0 replicas run"
    assert "starting genba up again" in made.renew()


def test_others_than_this_machine_need_a_key(cluster: Cluster, tmp_path: Path) -> None:
    fleet(Settings(home=tmp_path, port=1, host="0.0.0.0")).start()
    assert dict(cluster.told)["run"]["bound"][1] == {"behind_proxy": True}


@pytest.mark.parametrize(
    ("settings", "trouble", "code"),
    [
        (Settings(tls=Tls(cert=Path("a"), key=Path("b"))), {}, "G769"),
        (Settings(grpc_port=0), {}, "G769"),
        (Settings(), {"init": ConnectionError("no cluster\nmore")}, "G770"),
        (Settings(), {"run": RuntimeError("long\nthe home is not there")}, "G771"),
    ],
)
def test_what_goes_wrong_says_what_to_do(
    cluster: Cluster, settings: Settings, trouble: dict[str, Exception], code: str
) -> None:
    cluster.trouble = trouble
    with pytest.raises(Problem) as caught:
        fleet(settings).start()
    assert caught.value.code == code
    assert caught.value.tries
    assert not cluster.connected
