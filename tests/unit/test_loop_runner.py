"""The runner on a real store: effects happen once, whoever asks and however often."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from genba.core.codec import encode
from genba.core.line import Line, Retrain
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.loop import training
from genba.loop.runner import Runner, Tick
from genba.loop.state import LineState
from genba.stages.deploy import deploy
from genba.store.home import Store
from tests.unit.loop_store import (
    LINE,
    NOW,
    Launched,
    finish,
    kinds,
    label,
    manifest,
    only,
    prepare,
    runner,
    serve,
    told,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        prepare(opened)
        yield opened


def test_nothing_new_nothing_done(store: Store) -> None:
    before = store.ledger.head()
    with runner(store) as made:
        assert only(made.tick(NOW)) == Tick(line="pump")
    assert store.ledger.head() == before


def test_a_challenger_goes_all_the_way_and_back(store: Store) -> None:
    made = runner(store)
    finish(store, "b")
    assert kinds(only(made.tick(NOW))) == ["canary"]
    serve(store, a={"n": 10}, b={"n": 100})
    assert kinds(only(made.tick(NOW))) == ["promote"]
    serve(store, 200, b={"n": 100, "errors": 100})
    assert kinds(only(made.tick(NOW))) == ["roll_back"]
    state = made.state("pump")
    assert state.rollout.stable is not None
    assert state.rollout.stable.package == "a"
    assert state.rollout.condemned == {"b"}
    last = told(store, "deploy")[-1]
    assert last["by"] == "genba up"
    assert "error_rate is 1 (100 of the newest 100 predictions), above 0.01" in last["reason"]
    assert only(made.tick(NOW)).actions == ()


def test_what_the_guard_refuses_is_written_down_once(store: Store) -> None:
    made = runner(store)
    finish(store, "bad")
    assert kinds(only(made.tick(NOW))) == ["canary"]
    (refused,) = told(store, "action")
    assert (refused["action"], refused["code"], refused["package"]) == ("refused", "G521", "bad")
    assert only(made.tick(NOW)).actions == ()
    assert len(told(store, "deploy")) == 1


def test_labels_start_a_run_once_with_everything_the_child_needs(store: Store) -> None:
    launched = Launched()
    made = runner(store, launched)
    serve(store, a={"n": 10})
    label(store, 3)
    assert kinds(only(made.tick(NOW))) == ["start_run"]
    assert only(made.tick(NOW)).actions == ()
    (command,) = launched.commands
    reason = "labels: 3 labels since the last training, 3 asked for"
    home = str(store.path)
    assert command[:4] == [sys.executable, "-m", "genba", "run"]
    assert command[4:] == [
        *("--home", home, "--line", "pump"),
        *("--reason", reason, "--dataset", "d2"),
    ]
    (trigger,) = told(store, "trigger")
    assert trigger == {"trigger": "labels", "reason": reason, "would": False}


def test_a_request_whose_start_was_lost_is_repeated_later(store: Store) -> None:
    launched = Launched()
    serve(store, a={"n": 10})
    label(store, 3)

    def dies(command: Sequence[str]) -> None:
        raise KeyboardInterrupt

    with (
        Runner(store, launch=dies, extend_with=lambda *_: "d2") as first,
        pytest.raises(KeyboardInterrupt),
    ):
        first.tick(NOW)
    again = runner(store, launched)
    again.tick(NOW + 1_000)
    assert launched.commands == []
    again.tick(NOW + 10 * 60_000)
    assert len(launched.commands) == 1


def test_a_lost_run_is_closed_as_failed(store: Store) -> None:
    body = {"run": "r9", "reason": "asked", "line_digest": "l1"}
    store.ledger.append("run.started", body, line="pump", subject="r9", now_ms=NOW)
    made = runner(store)
    assert made.tick(NOW)[0].actions == ()
    assert kinds(only(made.tick(NOW + 10**7))) == ["give_up"]
    (closed,) = told(store, "run.finished")
    assert (closed["run"], closed["outcome"]) == ("r9", "failed")
    assert only(made.tick(NOW + 10**7)).actions == ()


def test_watching_leads_to_a_run_when_readings_have_moved(store: Store) -> None:
    launched = Launched()
    made = runner(store, launched)
    serve(store, a={"n": 160}, flow=5_000.0)
    tick = only(made.tick(NOW))
    assert (tick.windows, kinds(tick)) == (3, ["start_run"])
    assert launched.commands[0][-3].startswith("drift: flow has PSI")


def test_a_restarted_controller_goes_on_in_the_middle_of_a_window(store: Store) -> None:
    serve(store, a={"n": 70})
    with runner(store) as first:
        assert only(first.tick(NOW)).windows == 1
    serve(store, 70, a={"n": 35})
    with runner(store) as second:
        assert only(second.tick(NOW)).windows == 1
    assert [w["window"] for w in told(store, "watch")] == [0, 1]
    assert [w["rows"] for w in told(store, "watch")] == [50, 50]


def test_a_damaged_capture_does_not_keep_a_bad_package_in_service(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise Problem("G302", "A blob is damaged.", tries=["genba check"])

    finish(store, "b")
    made = runner(store)
    made.tick(NOW)
    monkeypatch.setattr("genba.loop.runner.watch", broken)
    serve(store, b={"n": 50, "errors": 50})
    (tick,) = made.tick(NOW)
    assert kinds(tick) == ["withdraw"]
    assert [p.code for p in tick.problems] == ["G302"]


def test_one_lines_problem_is_not_anothers(store: Store) -> None:
    other = encode(
        Line(name="fan", task="sensor.anomaly", data=LINE.data, retrain=Retrain(when={"moon": 1.0}))
    )
    store.ledger.record("line", "l2", other, line="fan")
    store.ledger.record("package", "f", {**encode(manifest("f")), "line": "fan"}, line="fan")
    deploy(store, "fan", "deploy", "f", reason="first", by="test")
    finish(store, "b")
    fan, pump = runner(store).tick(NOW)
    assert [p.code for p in fan.problems] == ["G105"]
    assert kinds(pump) == ["canary"]
    assert [t.line for t in runner(store, lines=["pump", "ghost"]).tick(NOW)] == ["pump"]


def test_a_full_disk_is_reported_and_the_tick_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(store, "b")
    made = runner(store)

    def full(*_: Any, **__: Any) -> None:
        raise Problem("G303", "The disk is full.", tries=["df -h"])

    with monkeypatch.context() as patch:
        patch.setattr("genba.loop.runner.deploy", full)
        assert [p.code for p in made.tick(NOW)[0].problems] == ["G303"]
    assert kinds(only(made.tick(NOW))) == ["canary"]


def test_a_young_lease_costs_no_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = runner(store)
    made.tick(NOW)
    monkeypatch.setattr(store.attempts, "heartbeat", lambda *_, **__: pytest.fail("a write"))
    assert only(made.tick(NOW)).held_by == ""


def test_only_one_controller_has_a_line(store: Store) -> None:
    finish(store, "b")
    with runner(store) as first:
        first.tick(NOW)
        with runner(store) as second:
            held = only(second.tick(NOW))
            assert held.held_by
            assert held.actions == ()
    with runner(store) as third:
        assert only(third.tick(NOW)).held_by == ""


def test_a_controller_that_lost_its_lease_stands_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.loop.runner.BEAT_S", 0.0)
    first, second = runner(store), runner(store)
    first.tick(NOW)
    first_lease = store.attempts.history()[-1]
    store.attempts.fail(first_lease.key, first_lease.owner, first_lease.attempt, {}, cancelled=True)
    assert only(second.tick(NOW)).held_by == ""
    assert only(first.tick(NOW)).held_by
    second.close()
    assert only(first.tick(NOW)).held_by == ""


def test_a_line_nobody_knows_is_a_problem(store: Store) -> None:
    with pytest.raises(Problem, match="G810"):
        runner(store).state("ghost")


def test_the_line_of_the_newest_run_is_the_one_in_force(store: Store) -> None:
    observing = encode(LINE) | {"rollout": {"decide": "observe"}}
    store.ledger.record("line", "l2", observing, line="pump")
    body = {"run": "r1", "reason": "asked", "line_digest": "l2"}
    store.ledger.append("run.started", body, line="pump", subject="r1", now_ms=NOW)
    finish(store, "b")
    made = runner(store)
    (action,) = only(made.tick(NOW)).actions
    assert (action.kind, action.would) == ("canary", True)
    back = {"run": "r2", "reason": "asked", "line_digest": "l1"}
    store.ledger.append("run.started", back, line="pump", subject="r2", now_ms=NOW)
    assert kinds(only(made.tick(NOW))) == ["canary"]
    assert len(told(store, "deploy")) == 2


def test_an_observing_line_would_train_and_says_so(store: Store) -> None:
    observing = encode(LINE) | {"rollout": {"decide": "observe"}}
    store.ledger.record("line", "l2", observing, line="pump")
    launched = Launched()
    serve(store, a={"n": 10})
    label(store, 3)
    made = runner(store, launched)
    assert kinds(only(made.tick(NOW))) == ["start_run"]
    assert only(made.tick(NOW)).actions == ()
    assert launched.commands == []
    assert told(store, "trigger")[0]["would"] is True


def test_a_line_without_a_model_is_not_watched(tmp_path: Path) -> None:
    with Store.open(tmp_path / "empty") as store:
        store.ledger.record("line", "l1", encode(LINE), line="pump")
        assert only(runner(store).tick()) == Tick(line="pump")


def test_the_dataset_starts_from_the_source(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str, parent: str | None) -> Any:
        segment = type("Segment", (), {"origin": "live" if name in ("d3", "d4") else "source"})
        return type("Version", (), {"id": name, "parent": parent, "segments": (segment,)})

    parents = {"d4": "d3", "d3": "d2", "d2": "d1", "d1": None}  # the source grew from d1 to d2
    seen: dict[str, Any] = {}

    class Rows:
        @staticmethod
        def extend(_: Store, line: Line, root: Any, captures: Any, lessons: Any) -> Any:
            seen.update(line=line.name, root=root.id, captures=captures, lessons=lessons)
            return version("d4", root.id)

    monkeypatch.setattr(
        training, "resolve", lambda kind, name: Rows if kind == "modality" else resolve(kind, name)
    )
    monkeypatch.setattr(training, "load", lambda _, name: version(name, parents[name]))
    serve(store, a={"n": 2})
    serve(store, 2, a={"n": 2})
    label(store, 1)
    assert training.extended_dataset(store, LINE, LineState(line="pump", dataset="d4")) == "d4"
    assert seen["root"] == "d2"
    assert [r.body["first"] for r in seen["captures"]] == [0, 2]
    assert [one.label for one in seen["lessons"]] == [0.0]
    state = Runner(store).state("pump")
    assert state.dataset is None
    training.extended_dataset(store, LINE, state)  # the stable package knows its dataset
    with pytest.raises(Problem, match="G811"):
        training.extended_dataset(store, LINE, LineState(line="pump"))


def test_runs_are_processes_of_their_own(tmp_path: Path) -> None:
    launch = training.ProcessLauncher()
    for name in ("one", "two"):
        made = tmp_path / name
        launch([sys.executable, "-c", f"import pathlib; pathlib.Path({str(made)!r}).touch()"])
    launch.wait()
    assert (tmp_path / "one").exists()
    assert (tmp_path / "two").exists()


def test_closing_interrupts_the_runs_that_are_going_on(tmp_path: Path) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"
    program = (
        "import pathlib, time\n"
        "try:\n"
        f"    pathlib.Path({str(ready)!r}).touch(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        f"    pathlib.Path({str(told)!r}).touch()\n"
    )
    launch = training.ProcessLauncher()
    launch([sys.executable, "-c", program])
    while not ready.exists():
        time.sleep(0.01)
    launch.stop()
    assert told.exists()
    launch.stop()  # nothing is left to stop


def test_a_run_that_ignores_the_interrupt_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / "ready"
    program = (
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)\n"
    )
    monkeypatch.setattr(training, "_STOP_S", 0.2)
    launch = training.ProcessLauncher()
    launch([sys.executable, "-c", program])
    while not ready.exists():
        time.sleep(0.01)
    launch.stop()
    launch.wait()
