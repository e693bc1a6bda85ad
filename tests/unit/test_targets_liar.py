"""A probe that lies: every kind of lie is found out, and says by what."""

import copy
import math
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genba.core.codec import decode, encode
from genba.core.problem import Problem
from genba.core.values import Measure
from genba.edge.probe import bound
from genba.targets.answers import read_answer
from genba.targets.plausible import Heard, peak_gflops, refuse_disagreement, refuse_implausible
from genba.targets.probing import Where, _profile
from genba.targets.profile import Profile
from genba.targets.written import toml
from genba.ui.cli.targets_report import warnings
from tests.unit.probe_answers import (
    ANSWERED_MS,
    ASKED_MS,
    NONCE,
    answer,
    as_bytes,
    faster,
    machine,
    rows,
    with_row,
)

HEARD = Heard(asked_ms=ASKED_MS, answered_ms=ANSWERED_MS)
NAN, INFINITE = float("nan"), float("inf")


def judge(told: dict[str, Any]) -> None:
    refuse_implausible(read_answer(as_bytes(told), NONCE, "line7"), HEARD, "line7")


def refusal(told: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        judge(told)
    return caught.value


def test_a_truthful_answer_is_accepted() -> None:
    judge(answer())
    judge(answer(rates=rows(speed=0.1)))
    judge(machine(clock_max_mhz=None, clock_mhz=1500.0))
    judge(answer(temperature_c=[None, None]))


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "fp32 beyond its vectors": (
        faster(0, 8.0),
        "gemm fp32 in numpy on one core says 205.2 GFLOP/s",
    ),
    "fp64 as fast as fp32 could be": (faster(1, 8.0), "gemm fp64"),
    "int8 beyond its vectors": (faster(6, 20.0), "conv int8 in onnxruntime"),
    "all cores beyond all vectors": (faster(4, 8.0), "on 4 cores says 656.8 GFLOP/s"),
    "one core copies 600 GB/s": (faster(3, 100.0), "memory fp32"),
    "reads faster than it copies": (faster(2, 10.0), "A matrix by a vector reads 60.46 GB/s"),
    "a billion calls": (faster(7, 25_000.0), "call fp32"),
    "negative time": (with_row(0, cpu_s=[-0.1] * 6), "has a -0.1 where only a positive"),
    "no time": (with_row(0, wall_s=[0.0] * 6), "has a 0.0 where only a positive"),
    "no number": (with_row(0, work=NAN), "has a nan where"),
    "infinite work": (with_row(0, work=INFINITE), "has a inf where"),
    "no calls": (with_row(0, calls=0), "has a 0.0 where"),
    "five repeats": (with_row(0, cpu_s=[0.4] * 5), "has 5 and 6 repeats"),
    "equal repeats": (with_row(0, cpu_s=[0.39] * 6, wall_s=[0.4] * 6), "equal to the last digit"),
    "repeats far apart": (
        with_row(0, cpu_s=[0.01, 0.3, 0.3, 0.3, 0.3, 0.3]),
        "30 times apart by CPU time",
    ),
    "more CPU time than cores": (with_row(0, cpu_s=[9.1, 9.2, 9.3, 9.4, 9.5, 9.6]), "CPU seconds"),
    "more threads than cores": (with_row(4, threads=64), "ran on 64 of 4 cores"),
    "nothing measured": (answer(rates=[]), "It measured nothing"),
    "worked longer than we waited": (answer(spent_s=300.0), "says it worked for 300.0 s"),
    "worked no time": (answer(spent_s=-3.0), "says it worked for -3.0 s"),
    "no working time": (answer(spent_s=NAN), "says it worked for nan s"),
    "kernels longer than the work": (answer(spent_s=2.0), "took 19."),
    "no cores": (machine(cores=0.0), "has 0 cores"),
    "a million cores": (machine(cores=1e6), "has 1e+06 cores"),
    "cores that are no number": (machine(cores=NAN), "has nan cores"),
    "no memory": (machine(memory_mib=0), "0 MiB"),
    "an exbibyte": (machine(memory_mib=1 << 40), "MiB of memory"),
    "a clock of 90 GHz": (machine(clock_max_mhz=90_000.0), "clock is 90000 MHz"),
    "a clock that is no number": (machine(clock_mhz=NAN), "clock is nan MHz"),
    "more calls than a number": (with_row(0, calls=10**400), "cannot be counted"),
    "a clock beyond time": (answer(began_ms=10**400), "a time that none can show"),
    "an endless load": (answer(load=[0.1, INFINITE]), "One of its numbers is none"),
    "a cache that is no number": (machine(cache_mib=NAN), "One of its numbers is none"),
    "hotter than solder": (answer(temperature_c=[40.0, 900.0]), "900 degrees"),
    "no temperature": (answer(temperature_c=[40.0, NAN]), "degrees"),
}


@pytest.mark.parametrize(("told", "says"), LIES.values(), ids=LIES.keys())
def test_a_lie_about_itself_is_found_out(told: dict[str, Any], says: str) -> None:
    problem = refusal(told)
    assert problem.code == "G614"
    assert says in problem.why
    assert problem.tries


def unbound(change: Callable[[dict[str, Any]], None]) -> bytes:
    told = copy.deepcopy(answer())
    change(told)
    return as_bytes(told)


def rebound(change: Callable[[dict[str, Any]], None]) -> bytes:
    told = copy.deepcopy(answer())
    change(told)
    return as_bytes({**told, "bound": bound(told)})


FORGED: dict[str, tuple[bytes, str]] = {
    "recorded earlier": (as_bytes(answer("another")), "another question"),
    "a nonce put in": (unbound(lambda t: t.update(python="3.12")), "changed after the probe"),
    "a faster rate put in": (
        unbound(lambda t: t["rates"][0].update(calls=9_999)),
        "changed after the probe",
    ),
    "a wrong proof": (rebound(lambda t: t.update(proof="0" * 64)), "came out wrong"),
    "a proof of another nonce": (
        rebound(lambda t: t.update(proof=answer("another")["proof"])),
        "came out wrong",
    ),
    "cut": (as_bytes(answer())[:-40], "no whole answer"),
    "empty": (b"", "no whole answer"),
    "a shell's words": (b"bash: python3: command not found\n", "no whole answer"),
    "a list": (b"[1, 2]\n", "no whole answer"),
    "another document": (b'{"format": "other"}\n', "no whole answer"),
    "nested without end": (b'{"a":' * 100_000, "no whole answer"),
    "endless": (b"{" + b" " * (5 << 20), "longer than 4 MiB"),
    "a field more": (rebound(lambda t: t.update(also=1)), "also is not a setting"),
    "a field less": (rebound(lambda t: t.pop("machine")), "machine is missing"),
    "text for a number": (rebound(lambda t: t.update(spent_s="long")), "spent_s must be a number"),
    "a name that clears the screen": (as_bytes(machine(processor="\x1b[2J")), "no device has"),
    "half a character": (as_bytes(machine(board="\ud800")), "no device has"),
    "two lines": (as_bytes(machine(system="a\nb")), "no device has"),
    "a name of a megabyte": (as_bytes(machine(processor="x" * 1_000_000)), "no device has"),
    "a key that clears the screen": (
        as_bytes(answer(runtimes={"\x1b[2J": "1"})),
        "no device has",
    ),
    "an unknown kind": (
        rebound(lambda t: t["rates"][0].update(kind="magic")),
        "kind must be one of",
    ),
}


@pytest.mark.parametrize(("output", "says"), FORGED.values(), ids=FORGED.keys())
def test_an_answer_that_is_not_to_this_question_is_refused(output: bytes, says: str) -> None:
    with pytest.raises(Problem) as caught:
        read_answer(output, NONCE, "line7")
    assert caught.value.code == "G615"
    assert says in caught.value.why


def test_a_login_banner_is_no_answer() -> None:
    output = b"Welcome to line7!\n{not json}\n" + as_bytes(answer())
    assert read_answer(output, NONCE, "line7").machine.cores == 4.0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(0, len(as_bytes(answer())) - 2), to=st.integers(0, 255))
def test_a_byte_changed_on_its_way_is_found_out(at: int, to: int) -> None:
    output = bytearray(as_bytes(answer()))
    if output[at] == to:
        return
    output[at] = to
    code, read = "", None
    try:
        read = read_answer(bytes(output), NONCE, "line7")
    except Problem as problem:
        code = problem.code
    # Only how the same number is written can differ.
    assert code == "G615" or read == read_answer(as_bytes(answer()), NONCE, "line7")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def paths(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = [so_far] if so_far else []
    if isinstance(value, (dict, list)):
        for key, inner in inside:
            found += paths(inner, (*so_far, key)) if isinstance(inner, (dict, list)) else []
            found.append((*so_far, key))
    return found


PLACES = [path for path in paths(answer()) if path[0] not in ("bound", "nonce", "proof")]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(PLACES), thing=ANYTHING)
def test_whatever_a_device_says_is_refused_or_makes_a_profile(
    path: tuple[Any, ...], thing: Any
) -> None:
    told: Any = copy.deepcopy(answer())
    inner = told
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = thing
    code = ""
    try:
        read = read_answer(as_bytes({**told, "bound": bound(told)}), NONCE, "line7")
        refuse_implausible(read, HEARD, "line7")
    except Problem as problem:
        code = problem.code
    else:
        profile = _profile("line7", Where(), read, HEARD, ())
        assert decode(Profile, tomllib.loads(toml(encode(profile)))) == profile
        assert warnings(profile) is not None
    assert code in ("", "G614", "G615")


@pytest.mark.parametrize(
    ("instructions", "precision", "per_cycle"),
    [
        ([], "fp32", 16),
        (["asimd"], "fp32", 32),
        (["asimd"], "fp64", 16),
        (["asimd"], "int8", 128),
        (["asimd", "i8mm"], "int8", 256),
        (["asimd", "bf16"], "bf16", 128),
        (["avx2"], "bf16", 32),
        (["avx2", "avx512f"], "fp32", 64),
        (["avx512f", "avx512_bf16"], "bf16", 128),
        (["avx512f", "amx_bf16"], "bf16", 2048),
        (["avx512f", "amx_int8"], "int8", 4096),
    ],
)
def test_what_a_core_can_do_at_most(
    instructions: list[str], precision: str, per_cycle: float
) -> None:
    told = machine(instructions=instructions, clock_max_mhz=1000.0)
    read = read_answer(as_bytes(told), NONCE, "line7")
    assert peak_gflops(read, precision) == pytest.approx(per_cycle * 1.15)
    listed = machine(instructions=instructions, clock_max_mhz=None, clock_mhz=1000.0)
    read = read_answer(as_bytes(listed), NONCE, "line7")
    assert peak_gflops(read, precision) == pytest.approx(per_cycle * 2.5)


class TestDisagreement:
    def points(self, *measured: float, low: float | None = 1.0) -> list[tuple[Measure, Measure]]:
        modelled = Measure(value=2.0, low=low, high=4.0 if low else None, method="modelled")
        return [(modelled, Measure(value=value)) for value in measured]

    def test_a_device_that_is_slower_than_its_profile_in_everything_is_found_out(self) -> None:
        with pytest.raises(Problem) as caught:
            refuse_disagreement("line7", self.points(9.0, 8.0, 12.0))
        assert caught.value.code == "G618"
        assert "4.5 times as long as modelled" in caught.value.why

    def test_a_device_that_is_much_faster_than_it_said_was_another(self) -> None:
        with pytest.raises(Problem) as caught:
            refuse_disagreement("line7", self.points(0.1, 0.2, 0.3))
        assert caught.value.code == "G618"
        with pytest.raises(Problem):
            refuse_disagreement("line7", self.points(0.1, 0.2, 0.3, low=None))

    @pytest.mark.parametrize(
        "measured",
        [(9.0, 9.0), (9.0, 9.0, 3.0), (4.5, 4.5, 4.5), (0.5, 9.0, 9.0), (0.9, 0.8, 0.9), ()],
    )
    def test_few_or_mixed_or_near_points_prove_nothing(self, measured: tuple[float, ...]) -> None:
        refuse_disagreement("line7", self.points(*measured))


def test_a_system_that_lists_no_instructions_is_bounded_by_the_widest_there_are() -> None:
    told = machine(instructions=[], system="Darwin 25.1", clock_max_mhz=1000.0)
    assert peak_gflops(read_answer(as_bytes(told), NONCE, "mac"), "fp32") == pytest.approx(1177.6)


def test_short_rounds_may_be_lost_to_the_host() -> None:
    short = rows()
    wall = [0.004, 0.0041, 0.0042, 0.06, 0.0044, 0.0045]
    short[0] = {**short[0], "calls": 1, "cpu_s": wall, "wall_s": wall}
    judge(answer(rates=short))


def test_the_rate_of_a_row_is_what_it_says() -> None:
    read = read_answer(as_bytes(answer()), NONCE, "line7")
    one, many = read.rates[0], read.rates[4]
    assert one.rates[0] == one.work * one.calls / one.cpu_s[0]
    assert many.rates[0] == many.work * many.calls / many.wall_s[0]
    assert math.isclose(one.wall_rate, 25.0, rel_tol=0.06)
