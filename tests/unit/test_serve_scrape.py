"""GET /metrics over several processes, and the dashboard that reads it."""

import asyncio
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genba.serve.limits import Limits
from genba.serve.settings import Siblings
from genba.serve.watch import metrics as module
from genba.serve.watch import scrape
from genba.serve.watch.gauges import publish, resident_bytes
from genba.serve.watch.metrics import Metrics, PackageMetrics, added, plain, render
from genba.serve.watch.scrape import Scraper, text_metrics
from tests.unit.served_part import part

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "genba.json"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose name is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="genba-") as name:
        yield Path(name)


def counted(rows: int, status: int = 200) -> Metrics:
    found = Metrics(5.0)
    found.package("pump", "p1", lambda: 2).add(part(rows), [0.002])
    found.answered("infer", status, 4)
    found.shed("queue", 3)
    found.roles = lambda: {("pump", "p1"): "stable"}
    found.rollbacks = lambda: {"pump": 1}
    found.gauges["genba_connections"] = ("Open.", lambda: 5)
    return found


def sibling(folder: Path, name: str, metrics: Metrics) -> Scraper:
    class Own(Siblings):
        """A process of this test that is not the process of this test."""

        own = folder / f"{name}.sock"
        others = tuple(
            folder / f"{other}.sock" for other in ("one", "two", "stuck") if other != name
        )

    return Scraper(metrics, Own(workers=3, folder=folder))


def lines_of(text: bytes) -> set[str]:
    return set(text.decode().splitlines())


def test_the_sum_over_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_ANSWER_S", 0.3)

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other has had enough
        writer.close()

    async def asked() -> bytes:
        one, two = sibling(folder, "one", counted(2)), sibling(folder, "two", counted(3, 503))
        stuck = await asyncio.start_unix_server(never, folder / "stuck.sock")
        await one.start()
        await two.start()
        text = await one.text()
        one.stop()
        two.stop()
        stuck.close()
        await asyncio.sleep(0.05)  # for the connections to be closed
        return text

    lines = lines_of(asyncio.run(asked()))
    labels = 'line="pump",package="p1"'
    assert {
        'genba_http_requests_total{code="200",route="infer"} 4.0',
        'genba_http_requests_total{code="503",route="infer"} 4.0',
        'genba_requests_shed_total{reason="queue"} 6.0',
        "genba_connections 10.0",
        f'genba_predictions_total{{{labels},role="stable",status="ok"}} 5.0',
        f"genba_queue_depth{{{labels}}} 4.0",
        f'genba_model_loaded{{{labels},role="stable"}} 1.0',  # the same in both
        'genba_rollbacks_total{line="pump"} 1.0',
        f'genba_inference_batch_size_bucket{{le="2",{labels}}} 1.0',
        f'genba_inference_batch_size_bucket{{le="+Inf",{labels}}} 2.0',
        f"genba_inference_batch_size_sum{{{labels}}} 5.0",
        "genba_workers 3.0",
        "genba_workers_answered 2.0",
    } <= lines


def test_one_process_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone = Scraper(counted(2))

    async def scraped() -> bytes:
        await alone.start()
        text = await alone.text()
        alone.stop()
        return text

    lines = lines_of(asyncio.run(scraped()))
    assert {"genba_workers 1.0", "genba_workers_answered 1.0", "genba_connections 5.0"} <= lines
    gone = Siblings(folder=folder)
    assert gone.own == folder / f"{os.getpid()}.sock"
    (folder / "1.sock").touch()
    with caplog.at_level(logging.WARNING):
        lines = lines_of(asyncio.run(Scraper(counted(1), gone).text()))
    assert {"genba_workers 2.0", "genba_workers_answered 1.0"} <= lines
    assert "does not tell its counts" in caplog.text


def test_the_handler_answers_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = []
    request: Any = SimpleNamespace(
        respond=lambda status, body, kind: answers.append((status, body[0], kind)),
        refuse=lambda refusal: answers.append(refusal.status),
    )
    app: Any = SimpleNamespace(metrics=Metrics(1.0), scraper=Scraper(Metrics(1.0)))

    async def twice() -> None:
        text_metrics(app, request, ())
        while not answers:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(app.scraper, "text", broken)
        text_metrics(app, request, ())
        while len(answers) < 2:
            await asyncio.sleep(0.001)

    async def broken() -> bytes:
        raise RuntimeError("broken")

    asyncio.run(twice())
    assert answers[0][::2] == (200, module.KIND)
    assert answers[1] == 500
    assert b'route="metrics"' in app.metrics.text()


def test_adding_one_process_changes_nothing() -> None:
    one = counted(3)
    assert lines_of(render(added([plain(one.collect())]))) == lines_of(one.text())


def test_counts_of_packages_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACKAGES", 3)
    found = Metrics(5.0)
    found.roles = lambda: {("pump", "p0"): "stable"}
    for number in range(6):
        found.package("pump", f"p{number}", lambda: 0)
    assert [package for _, package in found.packages()] == ["p0", "p4", "p5"]
    found.roles = lambda: {key: "stable" for key in found.packages()}
    found.package("pump", "p6", lambda: 0)  # more are loaded than are kept: none can go
    assert len(found.packages()) == 4


def test_energy_says_how_it_is_known() -> None:
    package = PackageMetrics(lambda: 0, 5.0)
    assert package.energy()["mj_per_prediction"] is None
    package.add(part(4), [0.1])
    package.cpu_seconds = 0.2
    told = package.energy()
    assert (told["joules"], told["mj_per_prediction"]) == (1.0, 250.0)
    assert told["how"].startswith("Modelled")


def everything() -> set[str]:
    """Return the names of the samples that a server tells."""
    found = counted(3)
    line = SimpleNamespace(
        name="pump", ready=True, roles=dict, rollout=SimpleNamespace(condemned=frozenset({"p0"}))
    )
    app: Any = SimpleNamespace(connections=[SimpleNamespace(owed=2)], lines={"pump": line})
    recorder: Any = SimpleNamespace(
        waiting=1, behind_s=0.5, written=9, skipped=2, dropped=1, nbytes=7
    )
    publish(found, app, recorder)
    found.roles = lambda: {("pump", "p1"): "stable"}
    text = asyncio.run(Scraper(found).text()).decode()
    assert "\ngenba_inflight 2.0\n" in text
    assert "\ngenba_capture_behind_seconds 0.5\n" in text
    assert '\ngenba_rollbacks_total{line="pump"} 1.0\n' in text
    return {re.split(r"[{ ]", row)[0] for row in text.splitlines() if not row.startswith("#")}


def test_every_metric_of_the_dashboard_exists() -> None:
    board = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [
        one["query"]["query"]
        for one in board["templating"]["list"]
        if isinstance(one["query"], dict)
    ]
    named = {name for text in expressions for name in re.findall(r"\bgenba_\w+", text)}
    assert len(named) > 15
    assert named <= everything()


def test_the_dashboard_has_what_grafana_asks_for() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= board.keys()
    source = board["templating"]["list"][0]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    used = {"type": "prometheus", "uid": "${" + source["name"] + "}"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["datasource"] == used
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
        for target in panel["targets"]:
            assert target["refId"]
            assert target["datasource"] == used


def test_memory_is_told_where_the_system_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resident_bytes() > 1 << 20
    monkeypatch.setattr("genba.serve.watch.gauges._STATM", Path("/no/such/file"))
    assert resident_bytes() == 0
    assert Limits().slow_s > 0
