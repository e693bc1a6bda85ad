"""What is offered, and what rules leave out before anything runs."""

from typing import Any

import pytest

from genba.codesign import rules, space
from genba.codesign.rules import Facts
from genba.codesign.values import Point, Trial
from genba.core.line import Limits
from genba.core.resolve import resolve

X86 = Facts(architecture="x86_64", cores=2, instructions=frozenset({"avx512_vnni", "avx512_bf16"}))
ENGINES = {name: resolve("engine", name) for name in ("onnxruntime", "openvino")}


def point(form: str = "", **settings: Any) -> Point:
    engine = settings.pop("engine", "onnxruntime")
    return Point(engine=engine, settings=settings, form=form)


def test_a_run_is_offered_little_and_the_simplest_first() -> None:
    points = space.narrow(ENGINES, 2)
    assert points[0] == Point(engine="onnxruntime", settings={"precision": "float32", "threads": 1})
    assert [p.form for p in points][-2:] == ["int8", "int8"]
    assert all(p.batch == 1 for p in points)


def test_a_search_is_offered_everything_once_what_a_run_tries_included() -> None:
    points = space.wide(ENGINES, 2, batches=(1, 8), variants=("", "small"))
    ids = [p.id for p in points]
    assert len(ids) == len(set(ids))
    assert {p.id for p in space.narrow(ENGINES, 2)} <= set(ids)
    assert {p.variant for p in points} == {"", "small"}
    assert {p.precision for p in points} == {"float32", "bfloat16", "float16", "int8"}
    assert {"int8", "int8-percentile", "int8-tensor", "int8-s8s8"} <= {p.form for p in points}


def test_an_engine_that_says_no_more_is_offered_as_in_a_run() -> None:
    class Plain:
        @classmethod
        def candidates(cls, cores: int) -> Any:
            return [{"threads": cores}]

    assert space.wide({"plain": Plain}, 3) == [Point(engine="plain", settings={"threads": 3})]


@pytest.mark.parametrize(
    ("asked", "facts", "reason"),
    [
        (point(threads=4), X86, "4 cores; the target has 2"),
        (point(threads=2, streams=2), X86, "4 cores; the target has 2"),
        (point(precision="float16"), X86, "no arithmetic in float16"),
        (point(precision="bfloat16"), Facts(architecture="x86_64", cores=2), "no instruction for"),
        (point("int8"), Facts(architecture="x86_64", cores=2), "no dot product"),
        (point("int8-s8s8"), X86, "signed by signed"),
        (
            point("int8-dynamic"),
            Facts(architecture="x86_64", instructions=X86.instructions, convolves=True),
            "at every call",
        ),
        (point(), Facts(graph_bytes=20 << 20, limits=Limits(size_mib=10)), "size_mib is 20 MiB"),
        (point(), Facts(graph_bytes=20 << 20, limits=Limits(memory_mib=10)), "Weights and one"),
        (point(), Facts(graph_bytes=20 << 20, memory_mib=16), "16 MiB are allowed"),
    ],
)
def test_each_rule_gives_its_reason(asked: Point, facts: Facts, reason: str) -> None:
    assert reason in rules.ruled_out(asked, facts)


@pytest.mark.parametrize(
    ("asked", "facts"),
    [
        (point(precision="float16"), Facts(architecture="aarch64")),
        (
            point(precision="float16"),
            Facts(architecture="x86_64", instructions=frozenset({"avx512_fp16"})),
        ),
        (point(precision="bfloat16"), X86),
        (point("int8"), X86),
        (point("int8-s8s8", engine="openvino"), X86),
        (
            point("int8-s8s8"),
            Facts(architecture="aarch64", instructions=frozenset({"i8mm"})),
        ),
        (point("int8-dynamic"), X86),
        (point("int8"), Facts(instructions=X86.instructions, limits=Limits(size_mib=0.001))),
    ],
)
def test_where_a_rule_does_not_hold_the_point_is_measured(asked: Point, facts: Facts) -> None:
    assert rules.ruled_out(asked, facts) == ""


def test_what_is_ruled_out_keeps_its_reason_and_the_rest_goes_on() -> None:
    offered = [Trial(point=point(threads=1)), Trial(point=point(threads=8))]
    assert rules.apply(offered, X86) == offered[:1]
    assert offered[1].stand == "ruled out"
    assert offered[1].refused


def test_a_limit_never_takes_the_last_point_so_that_somebody_is_nearest() -> None:
    facts = Facts(cores=2, graph_bytes=20 << 20, limits=Limits(memory_mib=1, size_mib=1))
    offered = [Trial(point=point(threads=n)) for n in (8, 1, 2)]
    assert rules.apply(offered, facts) == [offered[1]]
    assert "8 cores" in offered[0].refused[0]
    assert "1 MiB" in offered[2].refused[0]


def test_the_point_that_is_kept_is_one_that_answers_as_the_model_does() -> None:
    limits = Limits(size_mib=1)
    facts = Facts(cores=2, graph_bytes=20 << 20, limits=limits, instructions=X86.instructions)
    offered = [Trial(point=point(precision=p)) for p in ("bfloat16", "float32", "float32")]
    assert rules.apply(offered, facts) == [offered[1]]


def test_a_point_is_written_as_people_write_it() -> None:
    asked = Point(
        engine="openvino",
        settings={"precision": "int8", "threads": 1},
        form="int8-tensor",
        batch=8,
        variant="size-160",
    )
    assert asked.label == "openvino (int8-tensor, int8, threads 1, batch 8, size-160)"
    assert Point(engine="a", settings={}).id != Point(engine="a", settings={}, batch=2).id
