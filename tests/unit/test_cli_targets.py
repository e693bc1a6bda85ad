"""`genba targets`: the list, one target, probing one, and reading a meter on it."""

from pathlib import Path
from typing import Any

import pytest

from genba.targets.probing import Where
from genba.targets.profile import Profile, Rate, read_profile, write_profile
from genba.targets.registry import unprobed
from genba.ui.cli import targets as command
from genba.ui.cli.targets_report import compared, profile_facts, warnings


def rate(value: float = 20.0, **changes: Any) -> Rate:
    said: dict[str, Any] = {
        "kind": "gemm",
        "precision": "fp32",
        "value": value,
        "low": value * 0.9,
        "high": value * 1.1,
        "unit": "GFLOP/s",
        "engine": "numpy",
        "wall": value * 0.8,
        "repeats": 6,
    }
    return Rate(**{**said, **changes})


def probed(name: str = "line7", **changes: Any) -> Profile:
    known = unprobed("this-machine")
    said = {f: getattr(known, f) for f in known.__dataclass_fields__}
    rates = (rate(), rate(70.0, kind="conv", precision="int8", engine="onnxruntime"))
    return Profile(**{**said, "name": name, "rates": rates, "probed_s": 58.0, **changes})


@pytest.fixture
def probing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Where, float]]:
    """Probe nothing, and keep what was asked."""
    asked: list[tuple[str, Where, float]] = []

    def probe(name: str, where: Where, *, seconds: float, tell: Any) -> Profile:
        tell("measuring")
        asked.append((name, where, seconds))
        return probed(name, reach=where.reach, python=where.interpreter)

    monkeypatch.setattr(command, "probe_target", probe)
    return asked


def test_the_list_has_this_machine_what_was_probed_and_the_catalogue(
    ask: Any, show: Any, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    write_profile(home, probed())
    code, found = ask("targets", "--home", str(home))
    kinds = {target["name"]: target["kind"] for target in found["targets"]}
    assert code == 0
    assert (kinds["this-machine"], kinds["line7"], kinds["nvidia-h100"]) == (
        *("here", "probed", "catalog"),
    )
    shown = show("targets", "list", "--home", str(home))
    assert "raspberry-pi-5" in shown
    assert "not probed" in shown
    assert "genba targets probe this-machine" in shown


def test_a_target_of_the_catalogue_says_what_is_seen_and_what_is_from_memory(show: Any) -> None:
    shown = show("targets", "show", "nvidia-l4")
    assert "nothing was measured, all of it is modelled" in shown
    assert "seen" in shown
    assert "assumed" in shown
    assert 'genba targets probe nvidia-l4 --reach "ssh user@host"' in shown


def test_an_unknown_target_has_the_nearest(ask: Any) -> None:
    code, found = ask("targets", "show", "nvidia-h10")
    assert (code, found["problem"]["code"]) == (3, "G612")
    assert "did you mean nvidia-h100?" in found["problem"]["what"]


class TestProbe:
    def test_a_device_is_probed_and_its_profile_kept(
        self, ask: Any, probing: list[Any], tmp_path: Path
    ) -> None:
        home = tmp_path / "home"
        code, found = ask(
            *("targets", "probe", "line7", "--home", str(home), "--seconds", "5"),
            *("--reach", "ssh -o 'BatchMode yes' pi@line7", "--python", "/opt/py"),
        )
        assert code == 0
        where = Where(reach=("ssh", "-o", "BatchMode yes", "pi@line7"), python="/opt/py")
        assert probing == [("line7", where, 5.0)]
        kept = read_profile(Path(found["path"]), home)
        assert kept.reach == where.reach
        assert found["target"]["rates"][0]["value"] == 20.0
        assert found["target"]["digest"] == kept.digest
        code, shown = ask("targets", "show", "line7", "--home", str(home))
        assert shown["measurable"] is True

    def test_again_it_is_reached_as_before_and_keeps_its_meter(
        self, ask: Any, show: Any, probing: list[Any], tmp_path: Path
    ) -> None:
        home = ("--home", str(tmp_path / "home"))
        ask("targets", "probe", "line7", *home, "--reach", "ssh pi@line7", "--python", "/opt/py")
        code, found = ask("targets", "meter", "line7", *home, "--idle", "10", "--full", "30")
        assert code == 0
        assert found["watts_per_core"]["low"] < found["watts_per_core"]["value"]
        shown = show("targets", "probe", "line7", *home)
        assert probing[-1][1] == Where(reach=("ssh", "pi@line7"), python="/opt/py")
        assert "(external meter)" in shown
        assert "nothing changed by a quarter or more" in shown

    def test_one_that_was_altered_is_replaced(
        self, ask: Any, probing: list[Any], tmp_path: Path
    ) -> None:
        home = tmp_path / "home"
        path = write_profile(home, probed())
        path.write_text(path.read_text().replace("cores = ", "cores = 1"))
        assert ask("targets", "show", "line7", "--home", str(home))[1]["problem"]["code"] == "G616"
        code, found = ask("targets", "probe", "line7", "--home", str(home))
        assert (code, found["problem"]["code"]) == (2, "G110"), "this machine would pass for it"
        again = ("targets", "probe", "line7", "--home", str(home), "--reach", "ssh pi@line7")
        assert ask(*again)[0] == 0
        assert ask("targets", "show", "line7", "--home", str(home))[0] == 0

    @pytest.mark.parametrize("seconds", ["0", "-3", "1e9", "nan"])
    def test_a_time_that_is_none_is_refused(
        self, ask: Any, probing: list[Any], seconds: str, tmp_path: Path
    ) -> None:
        code, found = ask("targets", "probe", "--seconds", seconds, "--home", str(tmp_path))
        assert (code, found["problem"]["code"]) == (2, "G110")
        assert not probing

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (("line7", "--reach", "ssh 'pi@line7"), "No closing quotation"),
            (("--reach", "ssh pi@line7"), "needs a name of its own"),
            (("line7",), "How to get to line7 is not known"),
            (("raspberry-pi-5",), "How to get to raspberry-pi-5 is not known"),
        ],
    )
    def test_a_way_that_leads_nowhere_is_refused(
        self, ask: Any, probing: list[Any], tmp_path: Path, argv: tuple[str, ...], says: str
    ) -> None:
        code, found = ask("targets", "probe", *argv, "--home", str(tmp_path))
        assert (code, found["problem"]["code"]) == (2, "G110")
        assert says in found["problem"]["what"]
        assert not probing


class TestMeter:
    @pytest.mark.parametrize(
        ("argv", "code"),
        [
            (["line7"], "G110"),
            (["line7", "--idle", "10"], "G110"),
            (["line7", "--idle", "30", "--full", "10"], "G619"),
            (["line7", "--idle", "100", "--full", "101"], "G619"),
            (["line7", "--idle", "1", "--full", "9", "--accuracy", "7"], "G619"),
            (["nvidia-l4", "--idle", "10", "--full", "30"], "G617"),
            (["nobody", "--idle", "10", "--full", "30"], "G612"),
        ],
    )
    def test_what_tells_nothing_is_refused(
        self, ask: Any, tmp_path: Path, argv: list[str], code: str
    ) -> None:
        write_profile(tmp_path, probed())
        exit_code, found = ask("targets", "meter", *argv, "--home", str(tmp_path))
        assert found["problem"]["code"] == code
        assert exit_code != 0

    def test_this_machine_can_be_metered_without_a_probe(self, show: Any, tmp_path: Path) -> None:
        argv = ("--idle", "10", "--full", "30", "--accuracy", "0.01", "--home", str(tmp_path))
        shown = show("targets", "meter", *argv)
        assert "one busy core draws" in shown
        assert "each within 1.0%" in shown
        assert (tmp_path / "targets/this-machine.toml").is_file()


class TestReport:
    def test_what_to_mind_is_said(self) -> None:
        cores = unprobed("this-machine").cores
        found = " ".join(
            warnings(
                probed(
                    skipped=("gemm bf16 in openvino: none here",),
                    last_to_first=0.6,
                    clock_offset_s=-3.5 * 365.25 * 86_400,
                    clock_band_s=0.2,
                    load=(0.1, cores * 2 + 3),
                    power="battery",
                )
            )
        )
        for said in ("none here", "60%", "3.5 years behind this one", "It was busy", "battery"):
            assert said in found

    def test_a_clock_a_few_minutes_ahead(self) -> None:
        (found,) = warnings(probed(clock_offset_s=300.0, clock_band_s=1.0))
        assert "5 min ahead of this one" in found

    def test_nothing_to_mind(self) -> None:
        quiet = probed(last_to_first=1.0, clock_offset_s=0.3, clock_band_s=0.4, load=(0.1, 0.9))
        assert warnings(quiet) == []
        (only,) = warnings(unprobed("this-machine"))
        assert "Without a probe" in only

    def test_a_profile_says_where_it_is_from(self) -> None:
        told = dict(
            profile_facts(
                probed(
                    board="Board",
                    power="mains",
                    energy_counters=("package-0",),
                    temperature_c=(40.0, 61.0),
                    load=(0.1, 0.9),
                    reach=("ssh", "pi"),
                    clock_mhz=2400.0,
                    cache_mib=2.0,
                    accelerators=("NPU",),
                ),
                measurable=True,
            )
        )
        assert told["heat"] == "40 °C before, 61 °C after"
        assert told["power"].startswith("mains; 5 W [3 to 8] per busy core (assumed)")
        assert told["power"].endswith("counters: package-0")
        assert told["load"] == "0.1 before, 0.9 after"
        assert told["reached by"] == "ssh pi"
        assert "at 2400 MHz, 2 MiB of cache" in told["processor"]
        assert told["known from"].startswith("the probe, ")
        bare = dict(profile_facts(unprobed("this-machine"), measurable=True))
        assert bare["known from"] == "this process; not probed yet"

    def test_what_changed_since_the_last_probe_is_shown(self) -> None:
        before = probed(dated="2026-01-02T00:00:00Z")
        after = probed(rates=(rate(9.0), rate(70.0, kind="conv", precision="int8")))
        ((when, what),) = compared(before, after)
        assert when == "since 2026-01-02"
        assert what == "matrix by matrix fp32 in numpy, 1 at a time: 20 to 9 GFLOP/s"


def test_a_line_for_a_target_that_is_not_there_is_refused_before_any_work(
    ask: Any, tmp_path: Path
) -> None:
    path = tmp_path / "pump.toml"
    path.write_text('name = "p"\ntask = "sensor.anomaly"\n[data]\nsource = "files:a.csv"\n')
    line = ("check", str(path), "--home", str(tmp_path))
    code, found = ask(*line, "--set", 'target.device="jetson-orin-nana"')
    assert (code, found["problem"]["code"]) == (3, "G612")
    assert ask(*line, "--set", 'target.device="jetson-orin-nano"')[0] == 0
