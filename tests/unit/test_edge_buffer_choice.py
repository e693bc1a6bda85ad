"""Which readings people are asked to label: where it teaches most, each once, so many a day."""

from typing import Any

import numpy as np

from genba.edge.buffer_choice import CHANCE, NEAR, UNUSUAL, Choice
from genba.edge.clocks import HandClock
from genba.edge.interface import Field, Interface, Port, Span
from genba.edge.links.settings import SampleSettings

DAY_MS = 86_400_000


def interface(*, image: bool = False) -> Interface:
    ports = (
        (Port(name="image", datatype="UINT8", shape=(-1, 16, 16, 3), role="image"),)
        if image
        else ()
    )
    return Interface(
        line="pump",
        package="p",
        inputs=ports,
        outputs=(
            Port(name="score", datatype="FP32", shape=(-1,), role="score"),
            Port(name="probability", datatype="FP32", shape=(-1, 3), role="probability"),
        ),
        fields=(
            Field(name="flow", role="input", usual=Span(min=0.0, max=10.0)),
            Field(name="odd", role="input", usual=Span(min=1.0, max=1.0)),
        ),
    )


def why(choice: Choice, key: str, score: float, flow: float | None = 1.0, **more: Any) -> str:
    outputs = {"score": np.array([score])}
    seen = ({"flow": flow, "odd": 1.0}, more.get("tensors"))
    return choice.why(key, more.get("outputs", outputs), seen, more.get("unusual", False))


def made(clock: HandClock, *, image: bool = False, **more: Any) -> Choice:
    given = {"near": 0.8, "share": 0.0, "per_day": 40, "alike": 0.05, **more}
    return Choice(SampleSettings(**given), interface(image=image), clock)


def test_near_the_threshold_unusual_or_by_chance() -> None:
    choice = made(HandClock())
    assert why(choice, "a", 0.9, flow=1) == NEAR
    assert why(choice, "b", 1 / 0.85, flow=3) == NEAR
    assert why(choice, "c", 0.5, flow=5) == ""
    assert why(choice, "d", float("nan"), flow=5) == ""
    assert why(choice, "e", 0.5, flow=7, unusual=True) == UNUSUAL
    undecided = {"probability": np.array([[0.45, 0.44, 0.11]])}
    assert why(choice, "f", 0, flow=9, outputs=undecided) == NEAR
    assert why(choice, "g", 0, flow=9, outputs=None) == ""
    assert why(made(HandClock(), share=1.0), "h", 0.1) == CHANCE


def test_chance_is_the_same_for_the_same_reading() -> None:
    drawn = [why(made(HandClock(), share=0.2), f"r{n}", 0.1) for n in range(400)]
    assert drawn == [why(made(HandClock(), share=0.2), f"r{n}", 0.1) for n in range(400)]
    assert 50 < drawn.count(CHANCE) < 110


def test_what_looks_alike_is_asked_once() -> None:
    choice = made(HandClock())
    assert why(choice, "a", 0.9, flow=5.0) == NEAR
    assert why(choice, "b", 0.9, flow=5.4) == ""
    assert why(choice, "c", 0.9, flow=5.6) == NEAR
    assert why(choice, "d", 0.9, flow=None) == NEAR
    assert why(choice, "e", 0.9, flow=None) == ""


def test_images_are_compared_by_their_brightness() -> None:
    choice = made(HandClock(), image=True)
    dark = {"image": np.zeros((1, 16, 16, 3), np.uint8)}
    spot = {"image": dark["image"].copy()}
    spot["image"][0, :2, :2] = 200
    assert why(choice, "a", 0.9, tensors=dark) == NEAR
    assert why(choice, "b", 0.9, tensors={"image": dark["image"] + 5}) == ""
    assert why(choice, "c", 0.9, tensors=spot) == NEAR


def test_so_many_a_day_and_a_quarter_of_them_at_once() -> None:
    clock = HandClock()
    choice = made(clock, per_day=8, alike=0.0)
    asked = [why(choice, f"{n}", 0.9, flow=float(n)) for n in range(9)]
    assert asked.count(NEAR) == 2
    clock.turn(DAY_MS // 8)
    assert [why(choice, f"l{n}", 0.9, flow=20.0 + n) for n in range(2)] == [NEAR, ""]
    assert why(made(clock, per_day=0), "none", 0.9) == ""


def test_a_restart_remembers_what_was_asked() -> None:
    clock = HandClock()
    first = made(clock, per_day=12)
    assert why(first, "a", 0.9, flow=5.0) == NEAR
    second = made(clock, per_day=12)
    second.restore(first.state())
    assert why(second, "b", 0.9, flow=5.1) == ""
    assert [why(second, f"c{n}", 0.9, flow=1.0 + n) for n in range(3)] == [NEAR, NEAR, ""]
    third = made(clock)
    third.restore(b"{}")
    assert why(third, "d", 0.9, flow=5.1) == NEAR
