"""The whole server in this process: rollouts, packages that fail, faults and overload."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.core.values import EngineChoice, Signature
from genba.edge.signature import sign
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.serve.packages.deployments import Deployments
from genba.store.captures import read_capture
from genba.store.home import Store
from genba.store.signing import Signer
from genba.testing.graphs import small_batch
from genba.testing.serving import (
    ENTITY_NAMES,
    SIGNATURE,
    faulty_engine,
    place,
    serve_here,
    small_package,
    trap_graph,
    until,
)

LIMITS = Limits(poll_s=0.01, capture_s=0.05, sweep_s=0.02)
FEW = small_batch(3)
TRAP = 50.0  # the largest value of a window that the trap graph cannot digest


@pytest.fixture
def store(home: Path) -> Store:
    return Store.open(home)


def load_failures(store: Store) -> list[str]:
    return [event.body["code"] for event in store.ledger.events(kinds=["serve.load_failed"])]


def test_nothing_is_loaded(home: Path, store: Store) -> None:
    def script(client: Client) -> None:
        assert not client.ready()
        with pytest.raises(Problem) as caught:
            client.infer("pump", FEW)
        assert caught.value.code == "G703"
        place(store, "pump", "shadow", small_package(store, "pump"))
        until(lambda: "pump" in client.metrics())
        assert not client.ready("pump")
        with pytest.raises(Problem) as caught:
            client.metadata("pump")
        assert caught.value.code == "G705"
        with pytest.raises(Problem) as caught:
            client.infer("pump", FEW)
        assert caught.value.code == "G705"

    serve_here(home, script, limits=LIMITS)


def test_the_life_of_a_challenger(home: Path, store: Store) -> None:
    first, second = (small_package(store, "pump", seed=seed) for seed in (0, 1))
    place(store, "pump", "deploy", first)

    def script(client: Client) -> None:
        def answering() -> set[tuple[str, str]]:
            answers = [client.infer("pump", FEW) for _ in range(40)]
            return {(answer.package, answer.role) for answer in answers}

        def roles() -> list[str | None]:
            line = client.line("pump")
            return [line[r] and line[r]["package"] for r in ("stable", "canary", "shadow")]

        place(store, "pump", "shadow", second)
        until(lambda: roles() == [first, None, second])
        assert answering() == {(first, "stable")}
        place(store, "pump", "withdraw", second)
        until(lambda: roles() == [first, None, None])
        place(store, "pump", "canary", second, share=0.5)
        until(lambda: roles() == [first, second, None])
        assert answering() == {(first, "stable"), (second, "canary")}
        assert client.infer("pump", FEW, version=second).role == "canary"
        place(store, "pump", "promote", second)
        until(lambda: roles() == [second, None, None])
        assert answering() == {(second, "stable")}
        assert client.line("pump")["previous"] == first
        assert 'role="previous"' in client.metrics()
        place(store, "pump", "roll_back", second)
        until(lambda: roles() == [first, None, None])
        assert answering() == {(first, "stable")}
        assert client.line("pump")["condemned"] == [second]
        with pytest.raises(Problem) as caught:
            client.infer("pump", FEW, version=second)
        assert caught.value.code == "G703"
        place(store, "pump", "roll_back", first)
        until(lambda: not client.ready("pump"))

    serve_here(home, script, limits=LIMITS)
    seen: dict[str, int] = {}
    for record in store.ledger.find("capture"):
        for row in read_capture(store, record).to_pylist():
            seen[row["role"]] = seen.get(row["role"], 0) + 1
    assert seen["shadow"] == 40 * 3
    assert seen["canary"] + seen["stable"] == 4 * 40 * 3 + 3
    assert sum(r.body["rows"] for r in store.ledger.find("capture")) == sum(seen.values())


def test_a_shadow_knows_entities_by_its_own_numbers(home: Path, store: Store) -> None:
    place(store, "pump", "deploy", small_package(store, "pump"))
    turned = small_package(store, "pump", seed=0, entities=tuple(reversed(ENTITY_NAMES)))
    place(store, "pump", "shadow", turned)
    window = FEW["window"][:1]

    def script(client: Client) -> None:
        first = client.infer("pump", {"window": window, "entity": np.array([0])})
        second = client.infer("pump", {"window": window}, entities=["R80721"])
        unknown = client.infer("pump", {"window": window})
        assert len({*first.predictions, *second.predictions, *unknown.predictions}) == 3

    serve_here(home, script, limits=LIMITS)
    rows = [
        row
        for record in store.ledger.find("capture")
        for row in read_capture(store, record).to_pylist()
    ]
    entities = {(row["n"], row["role"]): row["entity"] for row in rows}
    assert [entities[n, "stable"] for n in range(3)] == ["R80711", "R80721", None]
    assert [entities[n, "shadow"] or None for n in range(3)] == ["R80711", "R80721", None]


def test_packages_that_cannot_be_served(home: Path, store: Store) -> None:
    good = small_package(store, "pump")
    place(store, "pump", "deploy", good)
    window = replace(SIGNATURE.inputs[0], shape=(-1, 4, 3))
    other_inputs = Signature(inputs=(window, *SIGNATURE.inputs[1:]), outputs=SIGNATURE.outputs)
    wrong_type = Signature(
        inputs=SIGNATURE.inputs,
        outputs=(replace(SIGNATURE.outputs[0], datatype="FP64"), *SIGNATURE.outputs[1:]),
    )
    no_output = Signature(
        inputs=SIGNATURE.inputs,
        outputs=(*SIGNATURE.outputs, replace(SIGNATURE.outputs[0], name="more")),
    )
    altered = small_package(store, "pump", seed=5)
    digest = next(iter(store.ledger.get("package", altered)["files"].values()))["digest"]  # type: ignore[index]  # it was just recorded
    path = store.blobs.path(digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    forged = small_package(store, "pump", seed=7)
    signer = Signer(store.path)
    another = encode(sign(good, signer.public_key, signer.sign))
    store.ledger.append("package.signed", {**another, "package": forged}, subject=forged)
    bad = {
        "0" * 64: "G302",
        forged: "G605",
        altered: "G302",
        small_package(store, "pump", engine=EngineChoice(name="tensorflow")): "G105",
        small_package(store, "pump", seed=2, graph=b"no graph"): "G608",
        small_package(store, "pump", seed=3, signature=wrong_type): "G707",
        small_package(store, "pump", seed=4, signature=no_output): "G707",
        small_package(store, "pump", seed=6, signature=other_inputs): "G602",
    }

    def script(client: Client) -> None:
        for count, (package, code) in enumerate(bad.items(), start=1):
            place(store, "pump", "canary", package, share=1.0)
            until(lambda count=count: len(load_failures(store)) >= count)  # type: ignore[misc]  # a default binds the loop variable
            assert load_failures(store)[-1] == code
            until(lambda package=package: package in client.line("pump")["failed"])  # type: ignore[misc]  # a default binds the loop variable
            assert client.infer("pump", FEW).package == good
        place(store, "pump", "promote", altered)
        until(lambda: len(load_failures(store)) > len(bad))
        assert client.infer("pump", FEW).package == good
        assert client.ready()

    serve_here(home, script, limits=LIMITS)


def test_a_canary_that_takes_other_requests(home: Path, store: Store) -> None:
    place(store, "pump", "deploy", small_package(store, "pump"))
    fewer = Signature(inputs=SIGNATURE.inputs, outputs=SIGNATURE.outputs[:2])
    place(store, "pump", "canary", small_package(store, "pump", signature=fewer), share=1.0)

    def script(client: Client) -> None:
        assert load_failures(store) == ["G710"]
        assert client.infer("pump", FEW).role == "stable"

    serve_here(home, script, limits=LIMITS)


def test_the_watch_goes_on_after_an_error(
    home: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = Deployments._follow, iter([OSError("disk"), ValueError("mistake")])

    def follow(self: Any, *arguments: Any) -> None:
        if threading.current_thread().name == "genba-deployments":
            for failure in failures:
                raise failure
        real(self, *arguments)

    monkeypatch.setattr(Deployments, "_follow", follow)

    def script(client: Client) -> None:
        place(store, "pump", "deploy", small_package(store, "pump"))
        until(client.ready)
        assert list(failures) == []

    serve_here(home, script, limits=LIMITS)


def test_not_a_number_is_null_in_json_and_counted(home: Path, store: Store) -> None:
    place(
        store,
        "pump",
        "deploy",
        small_package(store, "pump", engine=faulty_engine(not_a_number=True)),
    )

    def script(client: Client) -> None:
        answer = client.infer("pump", FEW)
        assert np.isnan(answer.outputs["score"]).all()
        assert client.line("pump")["versions"][answer.package]["not_a_number"] == 3

    serve_here(home, script, limits=LIMITS)
    summaries = [next(iter(r.body["packages"].values())) for r in store.ledger.find("capture")]
    assert sum(s["not_a_number"] for s in summaries) == 3
    rows = [r for c in store.ledger.find("capture") for r in read_capture(store, c).to_pylist()]
    assert [row["status"] for row in rows] == ["nan"] * 3


def test_a_model_that_raises(home: Path, store: Store) -> None:
    place(store, "pump", "deploy", small_package(store, "pump", graph=trap_graph()))
    hot = np.full((1, 3, 4), TRAP, dtype=np.float32)

    def script(client: Client) -> None:
        assert client.infer("pump", {"window": np.zeros_like(hot)}).role == "stable"
        for _ in range(3):
            with pytest.raises(Problem) as caught:
                client.infer("pump", {"window": hot})
            assert caught.value.code == "G707"

    serve_here(home, script, limits=LIMITS)
    captures = store.ledger.find("capture")
    summaries = [next(iter(r.body["packages"].values())) for r in captures]
    assert sum(s["errors"] for s in summaries) == 3
    assert sum(s["n"] for s in summaries) == 4
    rows = [r for c in captures for r in read_capture(store, c).to_pylist()]
    failed = [row for row in rows if row["status"] == "error"]
    assert [row["window"] for row in failed] == [[TRAP] * 12] * 3
    assert all(row.get("score") is None for row in failed)


def codes(client: Client, count: int) -> list[str]:
    """Ask from many connections at once; "" for an answer, else the code."""

    def one(_: int) -> str:
        with Client(client.url, timeout_s=20) as own:
            try:
                own.infer("pump", FEW)
            except Problem as problem:
                return problem.code
        return ""

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_a_full_queue_is_shed_at_once(home: Path, store: Store) -> None:
    place(store, "pump", "deploy", small_package(store, "pump", engine=faulty_engine(delay_ms=100)))

    def script(client: Client) -> None:
        found = codes(client, 16)
        assert set(found) == {"", "G706"}
        assert 'genba_requests_shed_total{reason="queue"}' in client.metrics()
        until(lambda: codes(client, 1) == [""])

    serve_here(home, script, limits=replace(LIMITS, queue_rows=6, batch_rows=3))


def test_requests_past_their_deadline(home: Path, store: Store) -> None:
    place(store, "pump", "deploy", small_package(store, "pump", engine=faulty_engine(delay_ms=300)))

    def script(client: Client) -> None:
        assert codes(client, 2) == ["G706", "G706"]
        assert 'genba_requests_shed_total{reason="deadline"} 2.0' in client.metrics()

    serve_here(home, script, limits=replace(LIMITS, deadline_s=0.1))
    summaries = [next(iter(r.body["packages"].values())) for r in store.ledger.find("capture")]
    # The second is turned away at once, since the package is known to be slow: no error of its own.
    assert sum(s["errors"] for s in summaries) == sum(s["n"] for s in summaries) == 3


def test_a_shadow_goes_without_under_load(home: Path, store: Store) -> None:
    place(store, "pump", "deploy", small_package(store, "pump"))
    place(store, "pump", "shadow", small_package(store, "pump", engine=faulty_engine(delay_ms=50)))

    def script(client: Client) -> None:
        assert codes(client, 8) == [""] * 8
        assert 'genba_requests_shed_total{reason="shadow"}' in client.metrics()

    serve_here(home, script, limits=replace(LIMITS, queue_rows=12, batch_rows=3))


def test_requests_are_answered_before_the_server_ends(home: Path, store: Store) -> None:
    slow = faulty_engine(delay_ms=200)
    place(store, "pump", "deploy", small_package(store, "pump", engine=slow))
    answers: list[str] = []
    threads: list[threading.Thread] = []

    def script(client: Client) -> None:
        client.infer("pump", FEW)
        threads.append(threading.Thread(target=lambda: answers.extend(codes(client, 4))))
        threads[0].start()
        until(lambda: sum(v["waiting"] for v in client.line("pump")["versions"].values()) == 9)

    serve_here(home, script, limits=replace(LIMITS, batch_rows=3))
    threads[0].join()
    assert answers == [""] * 4
    assert sum(r.body["rows"] for r in store.ledger.find("capture")) == 5 * 3
