"""The ledger against a model, and from many processes and threads at once."""

import multiprocessing
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genba.core.digest import canonical_json
from genba.store import tables
from genba.store.chain import Draft
from genba.store.home import Store
from genba.store.ledger import Ledger
from genba.store.lineage import ancestors
from tests.unit.open_ledger import open_ledger

KINDS = ("note", "deploy", "watch")
LINES = ("", "pump", "fan")
BODIES = st.dictionaries(
    st.text(max_size=5),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.lists(st.integers(), max_size=3),
    max_size=3,
)


def with_no_surrogates(body: dict[str, Any]) -> bool:
    try:
        canonical_json(body)
    except UnicodeEncodeError:
        return False
    return True


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path)


class LedgerMachine(RuleBasedStateMachine):
    """A ledger does what a list does."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.ledger = open_ledger(Path(self.directory.name))
        self.events: list[tuple[str, str, str, Any]] = []  # kind, line, subject, body
        self.keys: dict[str, int] = {}
        self.records: dict[str, tuple[str, str, Any, tuple[tuple[str, str], ...]]] = {}

    def teardown(self) -> None:
        self.ledger._database.close()
        self.directory.cleanup()

    @rule(
        kind=st.sampled_from(KINDS),
        line=st.sampled_from(LINES),
        body=BODIES.filter(with_no_surrogates),
        key=st.none() | st.sampled_from("abc"),
    )
    def append(self, kind: str, line: str, body: dict[str, Any], key: str | None) -> None:
        event = self.ledger.append(kind, body, line=line, subject="s", key=key)
        if key in self.keys and key is not None:
            assert event.seq == self.keys[key]
            return
        self.events.append((kind, line, "s", body))
        assert event.seq == len(self.events)
        if key is not None:
            self.keys[key] = event.seq

    @rule(
        kind=st.sampled_from(["model", "dataset"]),
        name=st.sampled_from(["r1", "r2", "r3"]),
        line=st.sampled_from(LINES),
        inputs=st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from(["r1", "z"])), max_size=2),
    )
    def record(self, kind: str, name: str, line: str, inputs: list[tuple[str, str]]) -> None:
        body = {"kind": kind}
        new = self.ledger.record(kind, name, body, line=line, inputs=inputs)
        assert new == (name not in self.records)
        if new:
            self.records[name] = (kind, line, body, tuple(sorted(set(inputs))))
            self.events.append((f"{kind}.created", line, name, body))

    @rule(drafts=st.lists(st.sampled_from([None, "a", "k"]), max_size=3))
    def append_group(self, drafts: list[str | None]) -> None:
        self.ledger.append_all([Draft(kind="group", body={}, subject="s", key=k) for k in drafts])
        for key in drafts:
            if key is None or key not in self.keys:
                self.events.append(("group", "", "s", {}))
                if key is not None:
                    self.keys[key] = len(self.events)

    @rule()
    def fail_half_way(self) -> None:
        def write() -> None:
            with self.ledger.transaction():
                self.ledger.append("note", {})
                self.ledger.record("model", "never", {})
                raise RuntimeError("half way")

        with pytest.raises(RuntimeError, match="half way"):
            write()

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def read_a_part(self, data: st.DataObject) -> None:
        after = data.draw(st.integers(0, len(self.events)))
        line = data.draw(st.none() | st.sampled_from(LINES))
        kinds = data.draw(st.none() | st.lists(st.sampled_from(KINDS), min_size=1))
        limit = data.draw(st.none() | st.integers(1, 3))
        wanted = [
            n + 1
            for n, event in enumerate(self.events)
            if n >= after
            and (line is None or event[1] == line)
            and (kinds is None or event[0] in kinds)
        ]
        found = self.ledger.events(after=after, line=line, kinds=kinds, limit=limit)
        assert [event.seq for event in found] == wanted[:limit]

    @invariant()
    def is_the_model(self) -> None:
        found = self.ledger.events()
        assert [(e.kind, e.line, e.subject, e.body) for e in found] == self.events
        report = self.ledger.verify()
        assert (report.ok, report.events, report.reason) == (True, len(self.events), "")
        assert self.ledger.head() == (
            (len(found), found[-1].digest) if found else (0, tables.GENESIS)
        )

    @invariant()
    def has_its_records(self) -> None:
        assert self.ledger.lookup("never") is None
        for name, (kind, line, body, inputs) in self.records.items():
            assert self.ledger.get(kind, name) == body
            assert name in [r.id for r in self.ledger.find(kind, line=line)]
            assert tuple((e.role, e.src) for e in self.ledger.parents(name)) == inputs
        models = [r.seq for r in self.ledger.find("model")]
        assert models == sorted(models, reverse=True)


LedgerMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=15)
TestLedgerAgainstAList = LedgerMachine.TestCase


def test_not_a_number_is_refused_and_nothing_is_written(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="JSON"):
        ledger.append("note", {"x": float("nan")})

    assert ledger.head()[0] == 0


def test_times_and_grouping(ledger: Ledger) -> None:
    with ledger.transaction():
        first = ledger.append("note", {}, now_ms=5)
        second = ledger.append("note", {})
        assert ledger.head()[0] == 2  # a transaction sees what it wrote

    assert first.time_ms == 5
    assert second.time_ms > 1_600_000_000_000
    assert second.previous == first.digest


def append_many(path: Path, name: str, n: int) -> None:
    ledger = open_ledger(path)
    for i in range(n):
        ledger.append("note", {"i": i}, line=name)
        ledger.append("shared", {"i": i}, key=f"shared-{i}")
        ledger.record("model", f"model-{i}", {"i": i})


def test_processes_and_threads_append_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=append_many, args=(tmp_path, f"process-{p}", 15)) for p in range(3)
    ]
    for worker in workers:
        worker.start()
    ledger = open_ledger(tmp_path)
    threads = [
        threading.Thread(target=append_many, args=(tmp_path, f"thread-{t}", 15)) for t in range(2)
    ]
    for thread in threads:
        thread.start()
    for worker in workers:
        worker.join()
    for thread in threads:
        thread.join()

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert ledger.verify().ok
    assert ledger.head()[0] == 5 * 15 + 15 + 15
    assert len(ledger.find("model")) == 15
    for name in ("process-0", "thread-1"):
        own = ledger.events(line=name)
        assert [e.body["i"] for e in own] == list(range(15))


def test_a_ledger_opened_before_a_fork_is_safe_in_the_child(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        store.ledger.append("note", {"by": "parent"})
        child = multiprocessing.get_context("fork").Process(
            target=lambda: store.ledger.append("note", {"by": "child"})
        )
        child.start()
        child.join()
        store.ledger.append("note", {"by": "parent"})

        assert child.exitcode == 0
        assert [e.body["by"] for e in store.ledger.events()] == ["parent", "child", "parent"]


def test_lineage_walks_a_graph_with_a_diamond_and_an_unknown_end(ledger: Ledger) -> None:
    ledger.record("dataset", "d1", {}, inputs=[("capture", "elsewhere")])
    ledger.record("model", "m1", {}, inputs=[("dataset", "d1")])
    ledger.record("model", "m2", {}, inputs=[("dataset", "d1")])
    ledger.record("package", "p1", {}, inputs=[("model", "m1"), ("champion", "m2")])

    up = ancestors(ledger, "p1")

    assert set(up.ids) == {"m1", "m2", "d1", "elsewhere"}
    assert up.ids[-1] == "elsewhere"
    assert len(up.edges) == 5
    assert {r.id for r in up.records} == {"p1", "m1", "m2", "d1"}
    assert ancestors(ledger, "nothing").ids == ()
