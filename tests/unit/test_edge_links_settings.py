"""The link file: every mistake gets a sentence, its place and what to type instead."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.edge.interface import Field, Interface, Port, Span
from genba.edge.links.fitting import fit
from genba.edge.links.settings import load_links, parse_links

PLC = """
[links.plc]
kind = "opcua"
address = "opc.tcp://10.0.0.5:4840"
[links.plc.columns]
flow = { node = "ns=2;s=flow", unit = "l/min" }
heat = { node = "ns=2;s=heat", unit = "degF", scale = 0.1 }
"""
BROKER = '[links.broker]\nkind = "mqtt"\naddress = "mqtt://h"\nanswers = "a/{entity}"\n'


def interface(*fields: Field, image: bool = False) -> Interface:
    port = Port(
        name="image" if image else "window",
        datatype="UINT8" if image else "FP32",
        shape=(-1, 8, 8, 3) if image else (-1, 3, len(fields)),
        role="image" if image else "feature",
        fields=tuple(f.name for f in fields),
        steps=0 if image else 3,
    )
    outputs = tuple(
        Port(name=n, datatype="FP32", shape=(-1,), role="score") for n in ("score", "alarm")
    )
    return Interface(
        line="pump", package="p", inputs=(port,), outputs=outputs, fields=fields, step_ms=1_000
    )


FLOW = Field(name="flow", role="input", unit="m3/h", usual=Span(min=0.0, max=10.0))
HEAT = Field(name="heat", role="input", unit="degC")


def refused(text: str, *, of: Interface | None = None) -> Problem:
    with pytest.raises(Problem) as caught:
        parse_links(text) if of is None else fit(parse_links(text), of)
    return caught.value


@pytest.mark.parametrize(
    ("text", "code", "what", "where", "first"),
    [
        ("[links.plc\n", "G106", "not valid TOML", "links.toml", "correct links.toml"),
        ("", "G103", "links is missing", "links.toml", "links = …"),
        ("links = {}", "G691", "has no link", "links.toml:1", "[links.plc]"),
        ("[links.plc]\n", "G103", "kind must be one of mqtt", "links.toml:1", 'kind = "mqtt"'),
        ('[links.plc]\nkind = "opc-ua"\n', "G103", "'opc-ua'", ":2", 'kind = "opcua"'),
        ('[links."P L C"]\nkind = "opcua"\n', "G104", "cannot be the name", "links.toml", "name ="),
        (PLC.replace("address", "adress"), "G102", "did you mean address?", ":4", "address = …"),
        (PLC.replace("scale", "scal"), "G102", "columns.heat.scal", ":7", "scale = …"),
        (PLC.replace("0.1", '"x"'), "G103", "scale must be a number", ":7", "change"),
        (PLC.replace("node = \"ns=2;s=flow\"", "nod = 1"), "G102", "nod", ":6", "node = …"),
        ('[links.b]\nkind = "mqtt"\naddress = "mqtt://h"\n', "G691", "neither reads nor writes",
         ":1", 'topic = "plant/+/readings"'),
        (BROKER, "G691", "No link reads anything", "links.toml", "topic ="),
        (PLC + PLC.replace("links.plc", "links.two"), "G691", "2 links read", "leader",
         'leader = "plc"'),
        ('leader = "plk"\n' + PLC, "G691", "'plk' is no link that reads", ":1", 'leader = "plc"'),
        (PLC + "[samples]\nshare = 2.0\n", "G691", "between 0 and 1", ":9", "share = 0.5"),
        (PLC + "[buffer]\ndays = true\n", "G103", "days must be a number", ":9", "change"),
        (PLC.replace("opcua\"", "opcua\"\nevery_ms = 0"), "G691", "at least 1 ms", ":2",
         "every_ms = 1000"),
    ],
)  # fmt: skip
def test_a_mistake(text: str, code: str, what: str, where: str, first: str) -> None:
    problem = refused(text)
    assert problem.code == code
    assert what in problem.what
    assert where in problem.where
    assert first in problem.tries[0]


@pytest.mark.parametrize(
    ("text", "what", "first"),
    [
        (PLC.replace("flow =", "flwo ="), "did you mean flow?", "flow = { … }"),
        (PLC.replace("l/min", "bar"), "comes in 'bar'; the model takes 'm3/h'", 'unit = "m3/h"'),
        (PLC.replace("l/min", "kmh"), "comes in 'kmh'", 'unit = "km/h"'),
        (PLC.replace("heat =", "# heat ="), "No link gives heat", "heat = { … }"),
        ('without = ["heta"]\n' + PLC, "heta is no column", 'without = ["heat"]'),
        (PLC + '[links.plc.answers]\nscor = { node = "ns=2;s=x" }\n', "did you mean score?",
         "score = { … }"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_package(text: str, what: str, first: str) -> None:
    problem = refused(text, of=interface(FLOW, HEAT))
    assert problem.code == "G691"
    assert what in problem.what
    assert problem.tries[0] == first


def test_a_model_of_images_is_not_led_by_numbers() -> None:
    with pytest.raises(Problem, match="is no column"):
        fit(parse_links(PLC), interface(image=True))
    text = "[links.plc]\nkind = 'files'\nfolder = 'f'\n"
    plc = replace(parse_links(text), kinds={"plc": "modbus"})
    with pytest.raises(Problem, match=r"plc \(modbus\) gives numbers"):
        fit(plc, interface(image=True))
    camera = '[links.camera]\nkind = "files"\nfolder = "/c"\n'
    _, notes = fit(parse_links(camera), interface(image=True))
    assert notes == ()


def test_units_become_those_of_the_model() -> None:
    links, notes = fit(parse_links(PLC), interface(FLOW, HEAT))
    made: Any = links.links["plc"]
    flow, heat = made.columns["flow"], made.columns["heat"]
    assert 100 * flow.scale + flow.offset == pytest.approx(6.0)  # 100 l/min
    assert 2_120 * heat.scale + heat.offset == pytest.approx(100.0)  # 212.0 degrees Fahrenheit
    assert notes == ()


def test_a_unit_that_nobody_stated_is_taken_and_said() -> None:
    bare = Field(name="flow", role="input"), HEAT
    _, notes = fit(parse_links(PLC), interface(*bare))
    assert notes == ("flow: the model states no unit; l/min is taken as it is",)


def test_a_column_that_the_device_does_not_have_may_be_left_out() -> None:
    text = 'without = ["heat"]\n' + PLC.replace("heat =", "# heat =")
    links, _ = fit(parse_links(text), interface(FLOW, HEAT))
    assert links.without == ("heat",)


def test_a_column_of_several_values_is_made_of_what_a_link_gives() -> None:
    fields = (Field(name="plc.flow:mean", role="input"), HEAT)
    links, _ = fit(parse_links(PLC.replace("flow =", '"plc.flow" =')), interface(*fields))
    made: Any = links.links["plc"]
    assert set(made.columns) == {"plc.flow", "heat"}


def test_a_broker_whose_columns_are_not_named_is_noted() -> None:
    text = '[links.b]\nkind = "mqtt"\naddress = "mqtt://h"\ntopic = "t"\n'
    _, notes = fit(parse_links(text), interface(FLOW, HEAT))
    assert "whether flow, heat come is seen when readings do" in notes[0]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        load_links(tmp_path / "no.toml")
    assert caught.value.code == "G101"
    path = tmp_path / "links.toml"
    path.write_text(PLC + BROKER)
    assert load_links(path).leader == "plc"
    assert load_links(path).kinds == {"plc": "opcua", "broker": "mqtt"}
