"""A package the real server cannot load: the real controller learns why, and so does the story."""

from pathlib import Path

from genba.core.codec import encode
from genba.core.line import Data, Line, Rollout
from genba.loop.runner import Runner
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.stages.deploy import deploy
from genba.store.home import Store
from genba.testing.serving import serve_here, small_package, until
from genba.ui.demo.story import Happening, Story

LINE = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(source="files:pump.csv"),
    rollout=Rollout(decide="auto"),
)


def test_the_controller_knows_why_a_canary_could_not_be_loaded(home: Path) -> None:
    told: list[Happening] = []
    with Store.open(home) as store:
        store.ledger.record("line", "line-1", encode(LINE), line="pump")
        good = small_package(store, "pump")
        bad = small_package(store, "pump", seed=1, graph=b"no graph")
        deploy(store, "pump", "deploy", good, reason="the first", by="a test")
        deploy(store, "pump", "canary", bad, share=0.5, reason="the second", by="a test")

        def script(client: Client) -> None:
            until(lambda: bad in client.line("pump")["failed"])

        serve_here(home, script, limits=Limits(poll_s=0.01))
        (failed,) = store.ledger.events(kinds=["serve.load_failed"])
        with Runner(store) as runner:
            why = runner.state("pump").broken[bad]
            (tick,) = runner.tick()
        Story(store, "pump", told.append).read()

    assert why == f"G608 {failed.body['what']}"
    (action,) = tick.actions
    assert (action.kind, action.package) == ("withdraw", bad)
    assert action.reason == f"the server could not load it: {why}"
    sentences = [happening.what for happening in told]
    assert f"the server cannot load {bad[:12]}: {failed.body['what']}" in sentences
    assert f"withdraw {bad[:12]}: {action.reason}" in sentences
