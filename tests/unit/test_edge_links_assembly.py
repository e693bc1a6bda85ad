"""Readings become the tensors that the tasks make of the same rows, whatever comes when."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.core.values import EngineChoice, Manifest, Signature, Verdict
from genba.edge.assembly import Assembly
from genba.edge.images import encode_png
from genba.edge.interface import Field, Interface
from genba.edge.links import Reading
from genba.edge.links.settings import Links, parse_links
from genba.stages.edge_interface import _inputs, _port
from genba.tasks.sensor.anomaly import schema as anomaly
from genba.tasks.sensor.forecast import schema as forecast
from genba.tasks.sensor.remaining_life import schema as life

STEP = 1_000
SENSORS = ("flow", "heat", "power")
ENTITIES = ("north", "south")
LINKS = parse_links('[links.plc]\nkind = "mqtt"\naddress = "mqtt://h"\ntopic = "t"\n')
BESIDE = parse_links(
    'leader = "plc"\n[links.plc]\nkind = "mqtt"\naddress = "mqtt://h"\ntopic = "t"\n'
    '[links.lab]\nkind = "mqtt"\naddress = "mqtt://h"\ntopic = "u"\nhold_ms = 2500\n'
)


def manifest(signature: Signature, settings: Mapping[str, Any]) -> Manifest:
    return Manifest(
        format=1, line="pump", task="t", model="m", run="r", dataset="d",
        engine=EngineChoice(name="onnxruntime"), signature=signature, settings=settings,
        entities=ENTITIES, files={}, verdict=Verdict(passed=True),
    )  # fmt: skip


def made(task: Any, settings: dict[str, Any], links: Links = LINKS) -> Assembly:
    signature = task.signature(settings)
    known = tuple(settings.get("known", ()))
    whole = manifest(signature, settings)
    interface = Interface(
        line="pump",
        package="p",
        fields=tuple(Field(name=n, role="input") for n in settings["sensors"]),
        inputs=_inputs(whole, tuple(settings["sensors"]), known),
        outputs=tuple(_port(t, ()) for t in signature.outputs),
        step_ms=STEP if settings["has_clock"] else None,
        tolerance_ms=STEP // 2,
    )
    return Assembly(whole, interface, links)


def reading(time_ms: int, values: Mapping[str, float | None], entity: str = "north") -> Reading:
    return Reading(
        id=f"{entity}@{time_ms}", source="plc", entity=entity, time_ms=time_ms,
        received_ms=time_ms, values=values,
    )  # fmt: skip


def rows(count: int, seed: int, *, uneven: bool) -> tuple[Any, Any]:
    """Return times with gaps (and off their step), and values with holes."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.choice([1, 1, 1, 2, 5], size=count))
    times = steps * STEP + (rng.integers(-400, 400, size=count) if uneven else 0)
    values = rng.normal(size=(count, len(SENSORS)))
    values[rng.random(values.shape) < 0.1] = np.nan
    return times.astype(np.int64), values


def columns_of(times: Any, values: Any) -> dict[str, Any]:
    made = {name: values[:, n] for n, name in enumerate(SENSORS)}
    zeros = np.zeros(len(times), dtype=np.int64)
    return {**made, "time": times, "entity": zeros, "row": np.arange(len(times)),
            "label": np.full(len(times), np.nan)}  # fmt: skip


def fed(assembly: Assembly, times: Any, values: Any) -> list[Any]:
    found = []
    for at, time_ms in enumerate(times):
        row = {
            n: None if np.isnan(v) else float(v) for n, v in zip(SENSORS, values[at], strict=True)
        }
        found.append(assembly.add(reading(int(time_ms), row)).sample)
    return found


BASE: dict[str, Any] = {
    "sensors": list(SENSORS), "outputs": ["power"], "lags": 4, "step_ms": STEP, "has_clock": True,
}  # fmt: skip
LIFE = {**BASE, "lead": 10, "window": 4}
FORECAST = {
    **BASE, "known": [], "ahead": 2, "lags": 6, "low": [None] * 3, "high": [None] * 3,
    "largest": 1e12, "horizons": [2], "coverage": 0.9,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("task", "settings", "uneven"),
    [
        (anomaly, BASE, True),
        (life, LIFE, True),
        (life, {**LIFE, "has_clock": False}, True),
        (forecast, FORECAST, False),
    ],
    ids=["anomaly", "life", "life without a clock", "forecast"],
)
def test_windows_are_those_of_the_task(
    task: Any, settings: dict[str, Any], uneven: bool, seed: int
) -> None:
    times, values = rows(40, seed, uneven=uneven)
    wanted = task.samples(columns_of(times, values), settings).tensors
    found = fed(made(task, settings), times, values)
    for name in wanted:
        if name in ("width", "alarm_at"):  # parameters: as they were packaged
            continue
        told = np.concatenate([sample.tensors[name] for sample in found])
        assert told.dtype == np.asarray(wanted[name]).dtype, name
        np.testing.assert_array_equal(told, wanted[name], err_msg=name)


def test_what_comes_late_or_twice_is_in_its_place() -> None:
    times, values = rows(30, 7, uneven=False)
    wanted = np.concatenate([s.tensors["window"] for s in fed(made(anomaly, BASE), times, values)])
    order = np.arange(30)
    order[10:14] = order[[12, 10, 13, 11]]
    order = np.repeat(order, 2)
    other = made(anomaly, BASE)
    found = fed(other, times[order], values[order])
    for at, sample in zip(order, found, strict=True):
        if at >= 17:  # behind the disorder, its windows are as if there had been none
            np.testing.assert_array_equal(sample.tensors["window"][0], wanted[at])


def test_one_time_that_is_years_off_spoils_nothing_for_long() -> None:
    assembly = made(anomaly, BASE)
    times = np.arange(1, 40) * STEP
    values = np.ones((39, 3))
    fed(assembly, times[:20], values[:20])
    fed(assembly, [10**13], values[:1])
    last = fed(assembly, times[20:], values[20:])[-1]
    assert np.isfinite(last.tensors["window"]).all()


def test_a_restart_finds_its_rows_again() -> None:
    times, values = rows(30, 3, uneven=True)
    first, state = made(anomaly, BASE), dict[str, bytes]()
    for at in range(29):
        row = {
            n: None if np.isnan(v) else float(v) for n, v in zip(SENSORS, values[at], strict=True)
        }
        for name, body in first.add(reading(int(times[at]), row)).state.items():
            if body is None:
                del state[name]
            else:
                state[name] = body
    assert len(state) == 24  # twice the window and some to spare, not more with every reading
    second = made(anomaly, BASE)
    assert second.restore({**state, "rows/broken": b"{"}) == 24
    expected = fed(first, times[29:], values[29:])[0]
    found = fed(second, times[29:], values[29:])[0]
    np.testing.assert_array_equal(found.tensors["window"], expected.tensors["window"])


def test_another_link_stands_beside_for_as_long_as_it_may() -> None:
    assembly = made(anomaly, BASE, BESIDE)
    lab = replace(reading(1_000, {"heat": 5.0}), source="lab")
    told = assembly.add(lab)
    assert told.sample is None
    second = made(anomaly, BASE, BESIDE)  # as after a restart
    second.restore_beside({n: b for n, b in told.state.items() if b is not None})
    second.restore_beside({"broken": b"[]"})
    for one in (assembly, second):
        found = [
            one.add(reading(t, {"flow": 1.0, "power": 2.0})).values["heat"]
            for t in (500, 1_000, 3_500, 3_501)
        ]
        assert found == [None, 5.0, 5.0, None]  # never before it was said, nor too long after


def test_a_source_without_machines_stands_beside_all_of_them() -> None:
    assembly = made(anomaly, BASE, BESIDE)
    assembly.add(replace(reading(1_000, {"heat": 5.0}, entity=""), source="lab"))
    for entity in ENTITIES:
        assert assembly.add(reading(1_500, {"flow": 1.0}, entity)).values["heat"] == 5.0


def test_machines_do_not_mix_and_unknown_ones_are_unknown() -> None:
    assembly = made(anomaly, BASE)
    for entity in (*ENTITIES, "new"):
        for t in (1_000, 2_000):
            sample = assembly.add(reading(t, {"flow": float(t)}, entity)).sample
        assert sample is not None
        assert sample.tensors is not None
        np.testing.assert_array_equal(
            sample.tensors["window"][0, :, 0], np.array([np.nan, np.nan, 1_000, 2_000], np.float32)
        )
        assert sample.tensors["entity"].tolist() == [{"north": 0, "south": 1}.get(entity, -1)]


def image_assembly() -> Assembly:
    signature = Signature(
        inputs=(replace(anomaly.signature(BASE).inputs[0], name="image", datatype="UINT8",
                        shape=(-1, 16, 16, 3), role="image"),),
        outputs=(),
    )  # fmt: skip
    whole = manifest(signature, {})
    ports = tuple(_port(t, ()) for t in signature.inputs)
    interface = Interface(line="brick", package="p", inputs=ports, outputs=())
    return Assembly(whole, interface, LINKS)


def test_an_image_becomes_pixels_and_a_broken_one_says_why() -> None:
    assembly = image_assembly()
    picture = encode_png(np.full((20, 40, 3), 7, np.uint8))
    good = assembly.add(replace(reading(1, {}), image=picture)).sample
    assert good is not None
    assert good.tensors is not None
    assert good.tensors["image"].shape == (1, 16, 16, 3)
    assert good.size == (40, 20)
    for broken, code in ((picture[:50], "G231"), (b"no image", "G230"), (None, "G692")):
        sample = assembly.add(replace(reading(1, {}), image=broken)).sample
        assert sample is not None
        assert sample.tensors is None
        assert sample.fault.startswith(code)


def test_a_package_that_takes_text_is_refused() -> None:
    signature = Signature(
        inputs=(replace(anomaly.signature(BASE).inputs[0], name="text", datatype="BYTES",
                        shape=(-1,), role="text"),),
        outputs=(),
    )  # fmt: skip
    ports = tuple(_port(t, ()) for t in signature.inputs)
    interface = Interface(line="desk", package="p", inputs=ports, outputs=())
    with pytest.raises(Problem) as caught:
        Assembly(manifest(signature, {}), interface, LINKS)
    assert caught.value.code == "G692"
