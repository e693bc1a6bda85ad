"""Logs and traces say what happened and never what a client sent."""

import http.client
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from genba.core import resolve
from genba.core.problem import Problem
from genba.serve.http.responses import Refusal
from genba.serve.watch import logs
from genba.serve.watch.logs import Journal, JsonLines
from genba.serve.watch.metrics import Metrics
from genba.serve.watch.otel import Otlp
from genba.serve.watch.tracing import Served, Tracing, open_tracing
from genba.store.home import Store
from genba.testing.serving import place, running_server, small_package
from tests.unit.served_part import part

SECRET = "dont-write-me-down"  # it is sent everywhere and must be found nowhere
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Taking)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        scopes = [s for r in requests for one in r.resource_spans for s in one.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def service(self) -> str:
        request = ExportTraceServiceRequest.FromString(self.bodies[0])
        attributes = request.resource_spans[0].resource.attributes
        return str(next(a.value.string_value for a in attributes if a.key == "service.name"))


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def asked(port: int, method: str, path: str, body: bytes, **fields: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_no_secret_is_written_anywhere(
    home: Path, capfd: pytest.CaptureFixture[str], collector: Collector
) -> None:
    with Store.open(home) as store:
        place(store, "pump", "deploy", small_package(store, "pump"))
    tensor = {"name": "window", "datatype": "FP32", "shape": [1, 3, 4], "data": [0.5] * 12}
    good = json.dumps({"id": SECRET, "inputs": [tensor]}).encode()
    wrong = json.dumps({"inputs": [{**tensor, "data": [SECRET]}]}).encode()
    sent = {
        "X_Secret": SECRET, "Cookie": SECRET, "User_Agent": SECRET,
        "traceparent": f"00-{TRACE}-{PARENT}-01",
    }  # fmt: skip
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with running_server(home, environment=environment) as server:
        infer = "/v2/models/pump/infer"
        assert asked(server.port, "POST", f"{infer}?x={SECRET}", good, **sent) == 200
        for path, body in (
            (infer, wrong),
            (infer, f'{{"{SECRET}'.encode()),
            (f"/v2/models/{SECRET}/infer", good),
            (f"/{SECRET}?{SECRET}", b""),
            ("/genba/v1/lines/pump/feedback", f'[{{"comment": "{SECRET}'.encode()),
        ):
            assert 400 <= asked(server.port, "POST", path, body, **sent) < 500
        asked(server.port, "GET", "/v2/models/pump", b"", Authorization=f"Bearer {SECRET}")
        assert server.stop() == 0
    out, err = capfd.readouterr()
    events = [json.loads(row) for row in err.splitlines()]
    refused = [one for one in events if "code" in one]  # a busy machine is also told as slow
    assert {one["code"] for one in refused} >= {"G703", "G708"}
    assert all(one["trace"] == TRACE for one in refused)
    assert SECRET not in out + err
    for file in home.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()
    assert collector.bodies
    assert SECRET.encode() not in b"".join(collector.bodies)
    assert collector.service() == "genba"
    (span,) = [one for one in collector.spans() if one.name == "infer pump"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)


def test_a_span_has_its_stages(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "plant-3")
    exporter = Otlp("server-1")
    known: dict[str, Any] = {
        "line": "pump", "package": "p1", "role": "stable", "prediction": "server-1-4", "rows": 1,
        "received_ns": 1_000, "started_ns": 2_000, "computed_ns": 5_000, "finished_ns": 6_000,
    }  # fmt: skip
    exporter.export(Served(trace=TRACE, parent=PARENT, error="", **known))
    exporter.export(Served(trace="", parent="", error="ValueError", **known))
    exporter.close()
    spans = collector.spans()
    mine = {s.name: s for s in spans if s.trace_id.hex() == TRACE}
    assert mine.keys() == {"infer pump", "queue", "compute", "write"}
    whole = mine["infer pump"]
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (1_000, 6_000)
    assert mine["compute"].parent_span_id == whole.span_id
    assert (mine["compute"].start_time_unix_nano, mine["compute"].end_time_unix_nano) == (
        2_000,
        5_000,
    )
    said = {one.key: one.value for one in whole.attributes}
    assert (said["genba.prediction"].string_value, said["genba.rows"].int_value) == (
        "server-1-4",
        1,
    )
    (failed,) = [s for s in spans if s.name == "infer pump" and s.trace_id.hex() != TRACE]
    assert not failed.parent_span_id
    assert failed.status.code == 2
    assert collector.service() == "plant-3"


class Kept:
    """An exporter for tests."""

    def __init__(self, *_: str) -> None:
        self.served: list[Served] = []
        self.closed = False
        self.broken = False

    def export(self, served: Served) -> None:
        if self.broken:
            raise OSError("nobody is there")
        self.served.append(served)

    def close(self) -> None:
        self.closed = True


def traced_part(first: int, parent: str = "", **more: Any) -> Any:
    return part(1, first, trace=TRACE if parent else "", parent=parent, **more)


def test_the_loop_never_waits_for_an_exporter() -> None:
    kept = Kept()
    tracing = Tracing(kept, "server-1", per_second=3, waiting=2)
    shadow = traced_part(0, PARENT, role="shadow")
    tracing.look("pump", shadow)
    for first in range(5):
        tracing.look("pump", traced_part(first, PARENT))
    assert tracing.dropped == 3  # one found the queue full, two came when the second was
    tracing.start()
    tracing.stop()
    assert [one.prediction for one in kept.served] == ["server-1-0", "server-1-1"]
    assert kept.closed
    assert kept.served[0].parent == PARENT
    stages = [
        kept.served[0].started_ns - kept.served[0].received_ns,
        kept.served[0].computed_ns - kept.served[0].started_ns,
        kept.served[0].finished_ns - kept.served[0].computed_ns,
    ]
    assert stages == pytest.approx([1_000_000, 1_000_000, 0], abs=2_000)
    assert abs(kept.served[0].received_ns - time.time_ns()) < 3_600e9 * 24 * 365 * 50


def test_an_exporter_that_fails_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    kept.broken = True
    tracing = Tracing(kept, "server-1")
    tracing.start()
    tracing.look("pump", traced_part(0, error=ValueError("x")))
    tracing.stop()
    assert (tracing.exported, tracing.dropped) == (0, 1)
    assert "not exported" in caplog.text


def test_nothing_is_traced_unless_somebody_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9"}
    nothing: dict[str, str] = {}
    assert open_tracing(nothing.get, "s") is None
    assert open_tracing({**endpoint, "OTEL_SDK_DISABLED": "true"}.get, "s") is None
    monkeypatch.setattr("genba.serve.watch.tracing.resolve", lambda *_: Kept)
    tracing = open_tracing(endpoint.get, "s")
    assert tracing is not None
    metrics = Metrics(5.0)
    metrics.tracing = tracing
    metrics.package("pump", "p1", lambda: 0).add(traced_part(0), [0.002])
    tracing.stop()
    assert tracing.exported == 1


def test_without_its_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for name in [
        m for m in sys.modules if m.startswith(("opentelemetry.", "genba.serve.watch.otel"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(Problem) as caught:
        resolve.resolve("telemetry", "otlp")
    assert caught.value.code == "G901"
    assert 'pip install "genba[otel]"' in caught.value.tries


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonLines().format(record)) for record in caplog.records]


def test_refusals_are_logged_so_many_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((1.0, 1.1, 1.2, 1.9, 2.0))
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: next(times)))
    metrics = Metrics(5.0)
    metrics.journal = Journal(per_second=2)
    for _ in range(5):
        metrics.refused("infer", Refusal(503, "G705", SECRET), line="pump", trace=TRACE)
    told = logged(caplog)
    assert [one.get("left_out") for one in told] == [None, None, 2]
    assert {k: told[0][k] for k in ("event", "level", "status", "code", "route", "line")} == {
        "event": "refused", "level": "warning", "status": 503, "code": "G705",
        "route": "infer", "line": "pump",
    }  # fmt: skip
    assert (told[0]["trace"], SECRET in json.dumps(told)) == (TRACE, False)
    assert b'genba_http_requests_total{code="503",route="infer"} 5.0' in metrics.text()


def test_slow_requests_are_logged_with_their_stages(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(5.0)
    metrics.journal = Journal(slow_s=0.1, per_second=1)
    package = metrics.package("pump", "p1", lambda: 0)
    package.add(part(2), [0.05])
    package.add(part(2, trace=TRACE), [0.2])
    package.add(part(2), [0.3])
    (told,) = logged(caplog)
    assert (told["event"], told["line"], told["package"], told["rows"]) == (
        "slow",
        "pump",
        "p1",
        2,
    )
    took = [told[f"{name}_ms"] for name in ("duration", "queue", "compute", "write")]
    assert took == pytest.approx([200, 1, 1, 0], abs=1e-6)


def test_an_exception_is_logged_without_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.install()
        for error in (ValueError(SECRET), Problem("G303", SECRET, tries=["df"])):
            try:
                raise error
            except (ValueError, Problem):
                logging.getLogger("genba.serve").exception("an error in the server")
        logging.getLogger("genba.serve").info("nobody wants to know")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["error"], first["event"]) == ("ValueError", "an error in the server")
    assert first["at"][-1].startswith("test_serve_logs.py:")
    assert second["code"] == "G303"
    assert SECRET not in json.dumps([first, second])
