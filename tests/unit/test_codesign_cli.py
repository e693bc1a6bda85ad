"""`genba codesign` and `genba port` as a person and as a program use them."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group

from genba.codesign.quiet import Load
from genba.core.line import Data, Line
from genba.core.lineschema import line_text
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.stages import optimize_bench as bench
from genba.stages import port
from genba.stages.codesign import Searched
from genba.store.home import Store
from genba.targets.cost import bill
from genba.ui.cli import codesign as page
from genba.ui.cli.app import run_command
from genba.ui.cli.codesign_report import blocks, picture

LINE = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))


def point(engine: str, cpu: float, **more: Any) -> dict[str, Any]:
    measured = {
        "cpu_ms": {"value": cpu, "unit": "ms", "low": cpu * 0.9, "high": cpu * 1.1},
        "latency_ms_p99": {"value": 2 * cpu, "unit": "ms"},
        "energy_mj": {"value": 5 * cpu, "unit": "mJ", "method": "modelled"},
    }
    return {
        "id": engine,
        "engine": engine,
        "settings": {"precision": "float32", "threads": 1},
        "form": "",
        "batch": 1,
        "variant": "",
        "stand": "measured",
        "measures": measured,
        "expected": {},
        "parity": {"decision_agreement": 1.0, "samples": 1234},
        "classes": {"good": {"samples": 9, "missed": 1, "missed_by_reference": 1}},
        "refused": [],
        "notes": ["wall time: others kept 0.1 cores busy"],
        "front": False,
        "chosen": False,
        **more,
    }


def result(*points: dict[str, Any], **more: Any) -> dict[str, Any]:
    chosen = next((p for p in points if p["chosen"]), None)
    return {
        "target": "this-machine",
        "prefer": "cpu",
        "candidates": list(points),
        "constraints": [
            {
                "name": "latency_ms_p99",
                "side": "max",
                "limit": 3.0,
                "measure": {"value": 2.0, "unit": "ms", "low": 1.0, "high": 4.0},
                "holds": True,
                "sure": False,
            }
        ],
        "search": {"measurements": 4, "offered": 20, "seconds": 3.5, "measured_there": True},
        **({"choice": {"label": chosen["engine"], "options": {}}} if chosen else {}),
        **more,
    }


def read(found: dict[str, Any]) -> str:
    console = Console(width=110, no_color=True, emoji=False, markup=False, highlight=False)
    with console.capture() as text:
        console.print(Group(*blocks(LINE, found, bill(3.0, 2.0))))
    return text.get()


class TestReport:
    def test_it_shows_choice_how_sure_it_is_every_point_and_the_cost(self) -> None:
        text = read(
            result(
                point("one", 1.0, chosen=True, front=True),
                point("two", 2.0, front=True),
                point("three", 4.0, refused=["Too slow."]),
                point("four", 8.0, measures={}, refused=["It asks for 8 cores."]),
                models={"": {"value": 0.99}, "small": {"value": 0.9}},
                judged_later=["better_than_before"],
            )
        )
        assert "✓ pump on this-machine: one, by cpu" in text
        assert "the interval reaches across" in text
        assert "good 1 of 9 (reference 1)" in text
        assert "wall time: others kept 0.1 cores busy" in text
        assert "4 measurements of 20 points" in text
        assert "four float32 t1: It asks for 8 cores." in text
        assert "as the line says 0.99; small 0.9" in text
        assert "better_than_before" in text
        assert "● chosen" in text

    def test_infeasible_names_the_nearest_and_what_to_relax(self) -> None:
        near = {
            "point": "one",
            "label": "one (float32)",
            "misses": ["latency_ms_p99 is 4 ms; this-machine allows 3 ms (33 % too much)."],
            "relax": ["--set target.limits.latency_ms_p99=4.4"],
        }
        text = read(result(point("one", 1.0), nearest=near))
        assert "✗ pump on this-machine: infeasible; the nearest is one (float32)" in text
        assert "--set target.limits.latency_ms_p99=4.4" in text

    def test_when_nothing_answers_rightly_the_reasons_are_told(self) -> None:
        text = read(result(stop=["No engine gives the answers of the reference."]))
        assert "nothing can be chosen" in text
        assert "No engine gives the answers" in text

    def test_a_choice_in_batches_says_what_one_row_a_call_takes(self) -> None:
        text = read(
            result(
                point("one", 1.0, chosen=True, batch=8),
                point("two", 2.0, form="int8-tensor", variant="small"),
            )
        )
        assert "one row a call" in text
        assert "two int8-tensor t1 (small)" in text

    def test_modelled_numbers_say_so(self) -> None:
        found = result(point("one", 1.0, chosen=True))
        found["search"] = {**found["search"], "measured_there": False, "model": "median error 9%"}
        text = read(found)
        assert "mJ (mod.)" in text
        assert "its numbers are modelled" in " ".join(text.split())
        assert "median error 9% (back-tested)" in text

    def test_the_picture_holds_every_measured_point(self) -> None:
        text = picture(result(point("one", 1.0, chosen=True), point("two", 3.0)), "pump")
        assert text.count("<circle") == 2 + 4  # and the legend


class TestPorting:
    def test_a_change_is_sure_only_where_the_intervals_do_not_meet(self) -> None:
        old = result(point("one", 1.0, chosen=True), reevaluated={"r2": {"value": 0.9}})
        new = result(point("one", 3.0, chosen=True), reevaluated={"r2": {"value": 0.9}})
        told = {c.name: c for c in port.changes(old, new, ["r2"])}
        assert told["cpu_ms"].times == pytest.approx(3.0)
        assert told["cpu_ms"].sure
        assert not told["energy_mj"].sure  # modelled, and nobody says how well
        assert told["r2"].times == 1.0
        assert told["decision_agreement"].before == {"value": 1.0, "n": 1234}

    def test_what_one_side_lacks_is_told_without_a_ratio(self) -> None:
        old = result(point("one", 1.0, chosen=True))
        new = result(point("one", 1.0, measures={}, chosen=True))
        told = {c.name: c for c in port.changes(old, new, [])}
        assert told["cpu_ms"].after is None
        assert told["cpu_ms"].times is None

    def test_without_a_point_on_either_side_there_is_nothing_to_tell(self) -> None:
        assert port.changes(result(), result(), ["r2"]) == []

    def test_a_line_that_was_never_measured_is_refused(self, tmp_path: Path) -> None:
        with (
            Store.open(tmp_path / "home", create=True) as store,
            pytest.raises(Problem) as refused,
        ):
            port.before(store, LINE)
        assert refused.value.code == "G620"


def test_next_says_how_to_take_a_variant_and_a_target() -> None:
    found = result(point("one", 1.0, chosen=True))
    found["choice"]["options"] = {"backbone": "filters"}
    searched = Searched(outcome="done", run="r", result=found, bill=bill(1.0, 1.0))
    assert page._next(LINE, "pump.toml", searched) == (
        "genba run pump.toml --set options.backbone=filters",
    )
    stopped = Searched(outcome="cancelled", run="r", result={}, bill=bill(1.0, 1.0))
    assert page._next(LINE, "pump", stopped) == ("genba codesign pump",)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A line with generated rows in the folder that commands are typed in."""
    monkeypatch.setattr(bench, "_WHOLE_S", 0.05)
    monkeypatch.setattr(
        "genba.stages.optimize_bench.wait_for_quiet",
        lambda _: Load(others=0.0, waited_s=0.0, quiet=True),
    )
    folder = tmp_path / "pumps"
    folder.mkdir()
    line = resolve("task", "sensor.anomaly").example(folder)
    (folder / "pumps.toml").write_text(line_text(line))
    monkeypatch.chdir(folder)
    return folder


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run_command([*words, "--json", "--home", "home"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_from_a_line_to_a_choice_a_run_and_another_target(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--set", "target.measurements=5", "--watch", "no")
    code, found = typed(capsys, "codesign", "pumps.toml", *few, "--to", "front.svg")
    assert code == 0
    assert (found["outcome"], found["target"]) == ("done", "this-machine")
    assert found["search"]["measurements"] <= 5
    assert {p["stand"] for p in found["points"]} >= {"ruled out", "verified"}
    chosen = next(p for p in found["points"] if p["chosen"])
    assert chosen["measures"]["cpu_ms"]["low"] <= chosen["measures"]["cpu_ms"]["value"]
    assert (example / "front.svg").read_text().startswith("<svg")

    impossible = ("--set", "target.limits.latency_ms_p99=0.000001")
    code, found = typed(capsys, "codesign", "pumps.toml", *few, *impossible)
    assert code == 1
    assert found["nearest"]["relax"][0].startswith("--set target.limits.latency_ms_p99=")
    assert found["next"][0].startswith("genba codesign pumps.toml --set target.limits.")

    code, ran = typed(capsys, "run", "pumps.toml", "--watch", "no")
    assert code == 0
    code, told = typed(capsys, "port", "generated-pumps", "--to", "raspberry-pi-5", "--watch", "no")
    assert code == 0
    assert not told["measured_there"]
    by_name = {c["name"]: c for c in told["changes"]}
    assert by_name["cpu_ms"]["after"]["method"] == "modelled"
    assert by_name["cpu_ms"]["before"].get("method", "measured") == "measured"
    assert by_name["r2"]["times"] == pytest.approx(1.0, abs=1e-6)


def test_a_target_that_does_not_exist_is_refused(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = typed(capsys, "codesign", "pumps.toml", "--target", "nowhere", "--watch", "no")
    assert code == 2 or code == 3
    assert found["problem"]["code"] == "G612"


def test_what_is_set_for_a_search_is_not_what_the_line_is_from_now_on(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def searched(found: Any, store: Any, progress: Any) -> Any:
        asked.append(found)
        return Searched(outcome="done", run="r", result={}, bill=bill(1.0, 1.0))

    monkeypatch.setattr(page, "search_line", searched)
    words = ("--set", "target.limits.memory_mib=1", "--variant", "none", "--batch", "4")
    typed(capsys, "codesign", "pumps.toml", *words, "--watch", "no")
    (one,) = asked
    assert one.line.target.limits.memory_mib == 1
    assert one.recorded.target.limits.memory_mib is None
    assert (one.variants, one.batches) == ((), (4,))


def test_a_shipped_line_is_found_by_its_name(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home", create=True) as store:
        recorded, wanted = page._lines(store, "inspection", ("target.prefer=size",))
    assert recorded.name == wanted.name == "inspection"
    assert (recorded.target.prefer, wanted.target.prefer) == ("cpu", "size")
