"""What the server answers devices: names, ranges, refusals; and plans, chances and notes."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from genba.core.chance import rare, tail
from genba.core.problem import Problem
from genba.edge.agent.factory import Factory
from genba.edge.agent.orders import decisions, read_orders
from genba.edge.agent.values import Confirmed, Refused, Rejected, State
from genba.serve.edge import desk as module
from genba.serve.edge.desk import Desk
from genba.serve.edge.devices import Device
from genba.serve.http.responses import Refusal
from genba.stages.edge_publish import cut_points
from genba.store.home import Store
from genba.ui.cli.edge_devices import _notes, _row, _waits

DIGEST = "ab" * 32
NOW_MS = 1_795_400_000_000
DAY_MS = 86_400_000


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    store = Store.open(tmp_path / "home")
    folder = tmp_path / "home/edge"
    (folder / "metadata").mkdir(parents=True)
    (folder / "objects").mkdir()
    (folder / "metadata/timestamp.json").write_bytes(b"{}")
    (folder / "objects" / DIGEST).write_bytes(bytes(range(10)))
    return Desk(store)


@pytest.mark.parametrize(
    ("wanted", "status", "body", "range_"),
    [
        (None, 200, bytes(range(10)), b""),
        (b"bytes=2-4", 206, bytes([2, 3, 4]), b"bytes 2-4/10"),
        (b"bytes=8-", 206, bytes([8, 9]), b"bytes 8-9/10"),
        (b"bytes=8-99", 206, bytes([8, 9]), b"bytes 8-9/10"),
        (b"bytes=10-11", 416, b"", b"bytes */10"),
        (b"bytes=4-2", 416, b"", b"bytes */10"),
        (b"lines=1-2", 200, bytes(range(10)), b""),
        (b"bytes=1-2,4-5", 200, bytes(range(10)), b""),
    ],
)
def test_ranges(desk: Desk, wanted: bytes | None, status: int, body: bytes, range_: bytes) -> None:
    told = desk._content(DIGEST, wanted)
    assert (told.status, told.body) == (status, body)
    assert range_ in told.fields


@pytest.mark.parametrize("name", ["..", "x.json", "root.json.tmp", "0.root.json", "1.root.json"])
def test_metadata_that_there_is_not(desk: Desk, name: str) -> None:
    with pytest.raises(Refusal) as caught:
        desk._metadata(name)
    assert caught.value.status == 404


@pytest.mark.parametrize("digest", ["cd" * 32, "../" + DIGEST, DIGEST.upper(), ""])
def test_content_that_there_is_not(desk: Desk, digest: str) -> None:
    with pytest.raises(Refusal) as caught:
        desk._content(digest, None)
    assert caught.value.status == 404


def test_metadata_that_cannot_be_renewed_is_served_all_the_same(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Callable[..., Any]:
        class Repository:
            def __init__(self, _: Path) -> None:
                pass

            def renew(self) -> None:
                raise error

        return lambda *_: Repository

    for error in (Problem("G303", "The disk is full.", tries=[]), OSError("gone")):
        desk._renewed = -1e9
        monkeypatch.setattr(module, "resolve", failing(error))
        assert desk._metadata("timestamp.json").body == b"{}"
    assert [r.message[:40] for r in caplog.records] == ["metadata for devices is not renewed: " + w
        for w in ("G30", "gon")]  # fmt: skip
    desk._metadata("timestamp.json")
    assert len(caplog.records) == 2, "not every time"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refusal(400, "G704", "No."), 400),
        (Problem("G689", "Not believed.", tries=[]), 403),
        (Problem("G104", "No name.", tries=[]), 400),
        (Problem("G303", "Full.", tries=[]), 503),
        (RuntimeError("a mistake"), 500),
    ],
)
def test_what_a_device_is_told(error: Exception, status: int) -> None:
    assert module._refused(error).status == status


class Asked:
    """A request and the application around it."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.metrics = self
        self.headers: dict[bytes, bytes] = {}
        self.body = b"[]"
        self.caller = ""

    def answered(self, route: str, status: int) -> None:
        assert route == "edge"

    def respond(self, status: int, body: tuple[bytes, ...], **_: Any) -> None:
        self.answers.append((status, b"".join(body)))


def test_a_bounded_number_of_devices_waits(desk: Desk) -> None:
    desk.waiting = 64
    with pytest.raises(Refusal) as caught:
        desk._later(Asked(), Asked(), lambda: module.Answered(b""))  # type: ignore[arg-type]
    assert caught.value.status == 503
    done: Future[Any] = Future()
    done.set_exception(ValueError("broken"))
    asked = Asked()
    desk._done(asked, asked, done)  # type: ignore[arg-type]  # as the event loop does
    assert asked.answers[0][0] == 500
    assert desk.waiting == 63
    desk.close()


def test_plans_that_cannot_be_read() -> None:
    for plan in ({}, {"format": 2}, {"format": 1, "lines": []}, {"format": 1, "devices": {"p": 3}}):
        with pytest.raises(Problem, match="G681"):
            read_orders(plan, "p", "pump")
    mine = {"p": {"release": 2, "confirmed": {"2": "kei"}, "rejected": {"1": {"by": "ada"}}}}
    plan = {
        "format": 1,
        "lines": {"pump": {"release": 3, "withdrawn": {"1": "old"}}},
        "devices": mine,
    }
    orders = read_orders(plan, "p", "pump")
    assert orders.release == 2, "what is said to the device itself goes first"
    assert list(decisions(orders, State(line="pump"))) == [
        Rejected(release=1, by="the factory", reason="old"),
        Rejected(release=1, by="ada"),
        Confirmed(release=2, by="kei"),
    ]
    known = State(line="pump", refused=(Refused(release=1, reason="", time_ms=0),))
    assert list(decisions(orders, known)) == [Confirmed(release=2, by="kei")]


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_chances(rate: float) -> None:
    assert tail(0, 10, rate) == 1.0
    assert tail(10, 10, rate) == pytest.approx(rate**10)
    assert rare(0, 5.0) == 1.0
    assert rare(1, 0.0) == 0.0
    assert rare(1, 0.5) == pytest.approx(1 - 2.718281828 ** (-0.5))


def test_safetensors_are_cut_at_their_tensors() -> None:
    large = 20_000
    header = {
        "__metadata__": {"by": "us"},
        "a": {"dtype": "U8", "shape": [large], "data_offsets": [0, large]},
        "b": {"dtype": "U8", "shape": [4], "data_offsets": [large, large + 4]},
    }
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(large + 4)
    assert cut_points("model.safetensors", data) == [8 + len(text), 8 + len(text) + large]


def test_a_factory_with_tls_is_asked_with_tls(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="G680"):
        Factory("https://127.0.0.1:9").read("/", 10)
    missing = Factory("https://127.0.0.1:9", certificate=tmp_path / "none.pem")
    with pytest.raises(Problem, match="G680"):
        missing.read("/", 10)


def test_what_people_read_about_devices() -> None:
    fresh = Device(name="p", line="pump", key="k", enrolled_ms=NOW_MS)
    assert _row(fresh, NOW_MS)[2:] == ["nothing", "", "not yet", ""]
    report = {
        "offer": 3,
        "clock_behind_ms": 3 * DAY_MS,
        "time_ms": NOW_MS + 9 * DAY_MS,
        "refused": {"2": "it burns"},
        "buffer": {"pending": {"prediction": 4}, "dropped": {"sample, full": 2}},
    }
    said = Device(name="p", line="pump", key="k", enrolled_ms=0, seen_ms=NOW_MS, report=report)
    assert _row(said, NOW_MS)[3:] == ["release 3, fetching", "0 ms ago", "4 records"]
    assert _row(said, NOW_MS + DAY_MS)[4].startswith("silent since")
    assert _notes(said, NOW_MS) == [
        "refused release 2: it burns",
        "its clock is 3 days behind",
        "2 records were dropped there, by its policy",
        "its clock is 9 days ahead",
    ]
    assert not _waits(said)
    gone = Device(name="p", line="pump", key="k", enrolled_ms=0, revoked_ms=NOW_MS)
    assert _row(gone, NOW_MS)[4].startswith("revoked 2026-")
