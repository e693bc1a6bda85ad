"""Probing a device over a command: what comes back, what does not, and the profile of it."""

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.store.signing import Signer
from genba.targets import probing
from genba.targets.answers import read_answer
from genba.targets.asking import Said
from genba.targets.plausible import Heard
from genba.targets.probing import Where, clock_offset_s, probe_target
from genba.targets.profile import Profile, read_profile, write_profile
from tests.unit.probe_answers import ANSWERED_MS, ASKED_MS, NONCE, answer, as_bytes, machine

Say = Callable[[str], dict[str, Any]]
SINK = "cat >/dev/null; "


def over(script: str) -> Where:
    """A device that is a shell: it gets the command and the probe, and does what a test says."""
    return Where(reach=("sh", "-c", script, "device"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory that asks and hears when the answers of `probe_answers` say."""
    times = itertools.cycle((ASKED_MS, ANSWERED_MS))
    monkeypatch.setattr(time, "time_ns", lambda: next(times) * 1_000_000)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, clock: None) -> Callable[..., list[Sequence[str]]]:
    """Let a device answer as a test says; returns what it was asked."""

    def answering(say: Say, codes: Sequence[int] = (0,)) -> list[Sequence[str]]:
        asked: list[Sequence[str]] = []
        returning = iter(codes)

        def run(_name: str, _where: Where, words: Sequence[str]) -> Any:
            asked.append(words)
            told = as_bytes(say(words[words.index("--nonce") + 1]))
            return Said(code=next(returning), out=told, err=b"so long\n")

        monkeypatch.setattr(probing, "_run", run)
        return asked

    return answering


class TestProfileOfAnAnswer:
    def test_what_was_said_is_in_it(self, device: Any) -> None:
        device(answer)
        found = probe_target("line7", Where(reach=("ssh", "line7"), python="py"), seconds=30)
        assert (found.name, found.source, found.reach, found.python) == (
            *("line7", "measured", ("ssh", "line7"), "py"),
        )
        assert found.dated == "2023-11-14T22:13:50Z"  # by the clock of the factory
        assert found.clock_mhz == 2400.0
        assert found.runtimes == {"python": "3.11.2", "numpy": "2.4.6", "onnxruntime": "1.32.0"}
        assert found.temperature_c == (48.0, 61.5)
        assert found.power == "mains"
        assert found.probed_s == 28.0
        rate = found.rate("gemm", "fp32")
        assert rate is not None
        assert (rate.engine, rate.unit, rate.repeats, rate.status) == (
            *("numpy", "GFLOP/s", 6, "measured"),
        )
        assert rate.low < rate.value < rate.high
        assert rate.value == pytest.approx(25.0, rel=0.06)
        assert found.rate("gemm", "fp32", threads=4, engine="numpy") is not None
        assert found.rate("gemm", "fp32", engine="openvino") is None
        assert found.rate("gemm", "fp32", on="gpu") is None

    def test_a_device_that_becomes_slow_shows(self, device: Any) -> None:
        def throttling(nonce: str) -> dict[str, Any]:
            single = [row for row in answer(nonce)["rates"] if row["threads"] == 1]
            rows = [{**row, "cpu_s": [*row["cpu_s"][:5], row["cpu_s"][0] * 2]} for row in single]
            return answer(nonce, rates=rows)

        device(throttling)
        found = probe_target("line7", Where(), seconds=30)
        assert found.last_to_first == pytest.approx(0.5, abs=0.01)

    def test_a_heat_that_was_read_once_only_is_not_shown(self, device: Any) -> None:
        device(lambda nonce: answer(nonce, temperature_c=[None, 50.0]))
        assert probe_target("line7", Where(), seconds=30).temperature_c == ()

    @pytest.mark.parametrize("years", [-30, 5])
    def test_a_clock_years_off_is_found_and_the_factory_dates_the_profile(
        self, device: Any, years: int
    ) -> None:
        off = round(years * 365.25 * 86_400_000)
        began, ended = ASKED_MS + 900 + off, ASKED_MS + 29_000 + off
        device(lambda nonce: answer(nonce, began_ms=began, ended_ms=ended))
        found = probe_target("line7", Where(), seconds=30)
        assert found.dated.startswith("2023-11-14")
        assert found.clock_offset_s == pytest.approx(off / 1000, abs=1.0)
        assert found.clock_band_s < 1.0

    def test_a_clock_set_in_the_middle_has_a_wide_band(self) -> None:
        told = answer(began_ms=ASKED_MS - 10**9, ended_ms=ASKED_MS + 29_000)
        read = read_answer(as_bytes(told), NONCE, "line7")
        offset, band = clock_offset_s(read, Heard(asked_ms=ASKED_MS, answered_ms=ANSWERED_MS))
        assert offset - band <= -1e6 <= 0 <= offset + band + 1

    def test_a_lie_makes_no_profile(self, device: Any) -> None:
        device(lambda nonce: {**machine(cores=1e9), "nonce": nonce})
        with pytest.raises(Problem) as caught:
            probe_target("line7", Where(), seconds=30)
        assert caught.value.code == "G615"

    def test_a_runtime_that_crashes_the_probe_is_left_out(self, device: Any) -> None:
        asked = device(answer, codes=(-signal.SIGILL, 128 + signal.SIGSEGV, 0))
        told: list[str] = []
        found = probe_target("line7", Where(), seconds=30, tell=told.append)
        assert [words[words.index("--engines") + 1 :] for words in asked] == [
            ["onnxruntime", "openvino"],
            ["onnxruntime"],
            [],
        ]
        assert found.skipped[-2:] == (
            "openvino: it crashed the probe",
            "onnxruntime: it crashed the probe",
        )
        assert told[1].endswith("without openvino")

    def test_a_probe_that_crashes_without_any_runtime_is_given_up(self, device: Any) -> None:
        device(answer, codes=(-signal.SIGILL,) * 3)
        with pytest.raises(Problem) as caught:
            probe_target("line7", Where(), seconds=30)
        assert caught.value.code == "G613"
        assert "ended by SIGILL" in caught.value.why

    def test_a_name_that_could_be_a_path_is_refused(self) -> None:
        with pytest.raises(Problem) as caught:
            probe_target("../line7", Where())
        assert caught.value.code == "G104"


class TestReaching:
    def refused(self, where: Where, **how: Any) -> Problem:
        with pytest.raises(Problem) as caught:
            probe_target("line7", where, seconds=0.2, **how)
        return caught.value

    def test_no_such_command(self) -> None:
        problem = self.refused(Where(reach=("no-such-command",)))
        assert problem.code == "G613"
        assert "no-such-command" in problem.why
        assert problem.tries[0] == "no-such-command python3 -V"

    def test_it_goes_away_in_the_middle(self) -> None:
        problem = self.refused(over("head -c 100 >/dev/null; echo lost >&2; exit 255"))
        assert (problem.code, problem.why) == ("G613", "lost")
        assert "ended by SIGKILL" in self.refused(over("kill -9 $$")).why
        assert "code 4" in self.refused(over(SINK + "exit 4")).why

    def test_it_answers_half(self) -> None:
        problem = self.refused(over(SINK + 'printf \'{"format": "genba-probe-1", \''))
        assert problem.code == "G615"

    def test_it_never_answers(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(probing, "_PATIENCE", (0.0, 0.3))
        pid = tmp_path / "pid"
        problem = self.refused(over(f"sleep 300 & echo $! > {pid}; wait"))
        assert problem.code == "G613"
        assert "did not answer within" in problem.why
        for _ in range(100):  # what it had started is ended too
            stat = Path(f"/proc/{pid.read_text().strip()}/stat")
            if not stat.is_file() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.02)
        os.kill(int(pid.read_text()), signal.SIGKILL)
        pytest.fail("the device's command still runs")

    def test_it_never_stops_talking(self) -> None:
        problem = self.refused(over("cat >/dev/null; yes '{\"format\": 1}'"))
        assert problem.code == "G615"
        assert "longer than 4 MiB" in problem.why

    def test_it_takes_nothing_and_complains_without_end(self) -> None:
        problem = self.refused(over("head -c 3000000 /dev/zero >&2; echo '\033[2Jno' >&2; exit 1"))
        assert problem.code == "G613"
        assert problem.why.endswith("no")
        assert "\033" not in problem.why

    def test_it_closes_its_mouth_and_lives_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probing, "_PATIENCE", (0.0, 1.0))
        problem = self.refused(over("exec <&- >&- 2>&-; sleep 300"))
        assert (problem.code, problem.why) == ("G613", "It was ended by SIGKILL.")

    def test_there_is_no_numpy(self) -> None:
        bare = Where(reach=("env", "PYTHONNOUSERSITE=1"), python="/usr/bin/env -S false")
        assert self.refused(bare).code == "G613"
        problem = self.refused(over(SINK + f"{sys.executable} -S -c 'import numpy'"))
        assert "numpy" in problem.why

    def test_an_interpreter_of_a_device_and_of_here(self) -> None:
        assert Where().interpreter == sys.executable
        assert Where(reach=("ssh", "x")).interpreter == "python3"
        assert Where(reach=("ssh", "x"), python="/opt/py").interpreter == "/opt/py"


def test_a_device_over_a_command_is_really_measured(tmp_path: Path) -> None:
    where = Where(reach=("env", "ON_DEVICE=1"), python=sys.executable)
    found = probe_target("line7", where, seconds=0.3)
    kinds = {(rate.kind, rate.precision, rate.engine) for rate in found.rates}
    assert {("gemm", "fp32", "numpy"), ("conv", "int8", "onnxruntime")} <= kinds
    assert found.reach == ("env", "ON_DEVICE=1")
    assert abs(found.clock_offset_s) <= found.clock_band_s + 0.1
    assert read_profile(write_profile(tmp_path, found), tmp_path) == found


class TestFile:
    @pytest.fixture
    def profile(self, device: Any) -> Profile:
        device(answer)
        return probe_target("line7", Where(reach=("ssh", "pi@line7"), python="python3"), seconds=30)

    def test_it_reads_back(self, profile: Profile, tmp_path: Path) -> None:
        path = write_profile(tmp_path, profile)
        assert path == tmp_path / "targets/line7.toml"
        assert read_profile(path, tmp_path) == profile
        assert read_profile(path, tmp_path).digest == profile.digest

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('precision = "fp32", value = ', 'precision = "fp32", value = 9'),
            ("cores = 4.0", "cores = 40.0"),
            ('reach = ["ssh", "pi@line7"]', 'reach = ["ssh", "evil@line7"]'),
            ('dated = "2023', 'dated = "2024'),
            ('name = "line7"', 'name = "line8"'),
            ('signature = "', 'signature = "00'),
            ('public_key = "', 'public_key = "zz'),
            ("[signature]", "[signatures]"),
            ("cores = 4.0\n", ""),
            ('source = "measured"', 'source = "guessed"'),
        ],
    )
    def test_altered_it_is_refused(
        self, profile: Profile, tmp_path: Path, old: str, new: str
    ) -> None:
        path = write_profile(tmp_path, profile)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(Problem) as caught:
            read_profile(path, tmp_path)
        assert caught.value.code == "G616"
        assert caught.value.tries

    def test_cut_anywhere_it_is_refused(self, profile: Profile, tmp_path: Path) -> None:
        path = write_profile(tmp_path, profile)
        whole = path.read_bytes()
        for cut in range(0, len(whole) - 2, 97):
            path.write_bytes(whole[:cut])
            with pytest.raises(Problem) as caught:
                read_profile(path, tmp_path)
            assert caught.value.code == "G616"

    def test_signed_by_another_home_it_is_refused_here(
        self, profile: Profile, tmp_path: Path
    ) -> None:
        path = write_profile(tmp_path / "there", profile)
        Signer(tmp_path)
        with pytest.raises(Problem, match="not accepted") as caught:
            read_profile(path, tmp_path)
        assert "another home" in caught.value.why
        assert read_profile(path, None) == profile

    def test_renamed_it_is_refused(self, profile: Profile, tmp_path: Path) -> None:
        path = write_profile(tmp_path, profile)
        other = path.rename(path.with_name("line8.toml"))
        with pytest.raises(Problem) as caught:
            read_profile(other, tmp_path)
        assert "the profile of line7" in caught.value.why

    @pytest.mark.parametrize(
        ("dated", "code"),
        [("2999-01-01T00:00:00Z", "G614"), ("yesterday", "G616"), ("2026", "G616")],
    )
    def test_from_the_future_it_is_refused(
        self, device: Any, tmp_path: Path, dated: str, code: str
    ) -> None:
        device(answer)
        honest = probe_target("line7", Where(), seconds=30)
        said = {**{f: getattr(honest, f) for f in honest.__dataclass_fields__}, "dated": dated}
        path = write_profile(tmp_path, Profile(**said))
        with pytest.raises(Problem) as caught:
            read_profile(path, tmp_path)
        assert caught.value.code == code
