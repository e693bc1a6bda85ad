"""The line file: strict, helpful, and the same whether written as TOML or in Python."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.line import (
    Budget,
    Check,
    Data,
    Limit,
    Limits,
    Line,
    Retrain,
    Rollout,
    Split,
    Target,
    Train,
)
from genba.core.linefile import find_key, load_line, parse_line, validate
from genba.core.lineschema import json_schema, line_text
from genba.core.problem import Problem

MINIMAL = 'name = "pump"\ntask = "sensor.anomaly"\n\n[data]\nsource = "files:pump.csv"\n'
FULL = """\
name = "wind-farm"
task = "sensor.anomaly"

[data]
source = "package:la-haute-borne"
inputs = ["Ws_avg", "Ba_avg"]
output = "P_avg"

[data.checks]
Ot_avg = { min = -30, max = 60 }
"Outside temperature" = { max = 60 }

[train]
budget = { minutes = 1, trials = 12 }

[gates]
r2 = { min = 0.95 }

[rollout]
canary = 0.1
roll_back_on = { error_rate = 0.01, latency_ms_p99 = 10 }

[retrain]
when = { drift = 0.2, labels = 200 }
"""


def problem_of(text: str, *overrides: str) -> Problem:
    with pytest.raises(Problem) as caught:
        parse_line(text, overrides, file="pump.toml")
    return caught.value


def fields_of(kind: Any) -> int:
    """Count what a person can set: leaves of the tree, a mapping's value type included."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return sum(fields_of(hints[f.name]) for f in dataclasses.fields(kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return fields_of(arguments[1])
    if origin is types.UnionType:
        return max(fields_of(a) for a in arguments)
    return 1


def test_a_line_has_at_most_sixty_fields() -> None:
    assert 30 <= fields_of(Line) <= 60


def test_the_file_and_the_function_give_the_same_line() -> None:
    written = Line(
        name="wind-farm",
        task="sensor.anomaly",
        data=Data(
            source="package:la-haute-borne",
            inputs=("Ws_avg", "Ba_avg"),
            output="P_avg",
            checks={"Ot_avg": Check(min=-30, max=60), "Outside temperature": Check(max=60)},
        ),
        train=Train(budget=Budget(minutes=1, trials=12)),
        gates={"r2": Limit(min=0.95)},
        rollout=dataclasses.replace(
            Rollout(),
            canary=0.1,
            roll_back_on=dataclasses.replace(Rollout().roll_back_on, latency_ms_p99=10.0),
        ),
        retrain=Retrain(when={"drift": 0.2, "labels": 200}),
    )
    assert parse_line(FULL) == validate(written)
    assert digest_json(encode(parse_line(FULL))) == digest_json(encode(validate(written)))


@pytest.mark.parametrize(
    ("text", "code", "what", "where"),
    [
        (
            FULL.replace("[train]", "[trian]"),
            "G102",
            "did you mean train",
            "pump.toml:13   [trian]",
        ),
        (
            FULL.replace("canary", "canry"),
            "G102",
            "did you mean canary",
            "pump.toml:20   canry = 0.1",
        ),
        (FULL.replace("minutes = 1", 'minutes = "x"'), "G103", "a number", "pump.toml:14   budget"),
        (FULL.replace('["Ws_avg", "Ba_avg"]', '["Ws_avg", 3]'), "G103", "inputs[1]", "pump.toml:6"),
        (FULL.replace('"wind-farm"', '"Wind Farm"'), "G104", "name of a line", "pump.toml:1"),
        (FULL.replace("sensor.anomaly", "sensor.anomly"), "G105", "did you mean", "pump.toml:2"),
        (FULL.replace("package:", "pakage:"), "G105", "did you mean package", "pump.toml:5"),
        (FULL.replace("labels =", "labls ="), "G105", "did you mean labels", "pump.toml:24"),
        (FULL.replace("package:la", "la"), "G103", "kind of source", "pump.toml:5"),
        (FULL.replace("canary = 0.1", "canary = 1.5"), "G108", "below 1", "pump.toml:20"),
        (
            FULL.replace("max = 60 }\n\n", "max = 60, min = 70 }\n\n"),
            "G108",
            "min 70",
            "pump.toml:11",
        ),
        (FULL.replace("name = ", "nam = "), "G102", "did you mean name", "pump.toml:1"),
        (FULL.replace('name = "wind-farm"\n', ""), "G103", "name is missing", "pump.toml, name"),
        (FULL.replace("[gates]", "[gates"), "G106", "line 16", "pump.toml:16   [gates"),
        ("", "G103", "name is missing", "pump.toml"),
        ("data = 3\nname = 'a'\ntask = 'sensor.anomaly'", "G103", "a table", "pump.toml:1"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, code: str, what: str, where: str) -> None:
    problem = problem_of(text)
    assert (problem.code, problem.exit_code) == (code, 2)
    assert what in problem.what
    assert problem.where.startswith(where)
    assert problem.tries


@pytest.mark.parametrize(
    ("override", "code", "tries"),
    [
        ("train.bugdet={minutes=2}", "G102", "--set train.budget={minutes=2}"),
        ("train.bugdet.minutes=2", "G102", "--set train.budget.minutes=2"),
        ("train.seed=abc", "G103", "change train.seed to a whole number"),
        ("train.seed", "G107", "--set train.budget.minutes=2"),
        ("target.engines=['tpu']", "G105", "--set target.engines="),
        ("train.budget.trials=0", "G108", "change train.budget.trials"),
        ("data.split={test=0.6, calibrate=0.5}", "G108", "change data.split"),
    ],
)
def test_a_mistake_on_the_command_line_points_there(override: str, code: str, tries: str) -> None:
    problem = problem_of(MINIMAL, override)
    assert problem.code == code
    assert problem.where == f"--set {override}"
    assert problem.tries[0].startswith(tries)


def test_set_takes_toml_or_plain_text_and_wins_over_the_file() -> None:
    line = parse_line(
        FULL,
        [
            "train.budget.minutes=0.5",
            "data.output=Power",
            "gates.mae={max=40}",
            "data.inputs=['a']",
        ],
    )
    assert line.train.budget == Budget(minutes=0.5, trials=12)
    assert line.data.output == "Power"
    assert set(line.gates) == {"r2", "mae"}
    assert line.data.inputs == ("a",)


def test_the_name_of_a_column_may_need_quotes() -> None:
    text = FULL.replace(
        '"Outside temperature" = { max = 60 }', '"Outside temperature" = { mx = 6 }'
    )
    assert problem_of(text).where.startswith("pump.toml:11   ")


def test_a_file_that_is_not_there_or_not_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pump.toml").write_text(MINIMAL)
    (tmp_path / "noise.toml").write_bytes(bytes(range(256)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Problem, match="does not exist") as missing:
        load_line("pmp.toml")
    assert missing.value.tries[0] == "genba run pump.toml"
    with pytest.raises(Problem, match="is a folder"):
        load_line(tmp_path)
    with pytest.raises(Problem, match="not a text file") as binary:
        load_line("noise.toml")
    assert (missing.value.code, binary.value.code) == ("G101", "G106")
    assert load_line("pump.toml").data.source == "files:pump.csv"


@given(st.text(max_size=200))
def test_any_text_gives_a_line_or_a_problem(text: str) -> None:
    try:
        parse_line(text)
    except Problem as problem:
        assert problem.code in {"G102", "G103", "G106"}  # noqa: PT017  either outcome is right


def test_find_key_prefers_the_longest_match() -> None:
    assert find_key(FULL, "train.budget.minutes") == 14
    assert find_key(FULL, "data.checks.Ot_avg.min") == 10
    assert find_key(FULL, "nothing") is None


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
texts = st.text(min_size=1, max_size=12)
lines = st.builds(
    Line,
    name=st.just("pump"),
    task=st.just("sensor.anomaly"),
    data=st.builds(
        Data,
        source=texts.map(lambda t: f"files:{t}"),
        time=st.none() | texts,
        inputs=st.lists(texts, max_size=3).map(tuple),
        checks=st.dictionaries(
            texts,
            st.builds(
                Check,
                min=st.none() | numbers,
                allowed=st.none() | st.lists(texts, max_size=2).map(tuple),
                required=st.booleans(),
            ),
            max_size=3,
        ),
        split=st.builds(Split, by=st.sampled_from([None, "time", "entity"]), test=st.just(0.3)),
    ),
    train=st.builds(
        Train, budget=st.builds(Budget, minutes=st.floats(0.1, 1e6), trials=st.integers(1, 99))
    ),
    gates=st.dictionaries(texts, st.builds(Limit, max=st.none() | numbers), max_size=2),
    target=st.builds(Target, limits=st.builds(Limits, memory_mib=st.none() | numbers)),
    retrain=st.builds(Retrain, when=st.dictionaries(st.sampled_from(["drift", "labels"]), numbers)),
)


@given(lines)
def test_what_is_written_is_read_back_the_same(line: Line) -> None:
    assert parse_line(line_text(line)) == line


def test_comments_stand_behind_what_they_explain() -> None:
    text = line_text(
        parse_line(FULL),
        {"data.inputs": "sensors", "gates": "the line stops here", "gates.r2": "guessed"},
    )
    assert 'inputs = ["Ws_avg", "Ba_avg"]  # sensors' in text
    assert "[gates]  # the line stops here\nr2 = { min = 0.95 }  # guessed" in text
    assert parse_line(text) == parse_line(FULL)


def test_the_schema_describes_every_field_and_nothing_else() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["required"] == ["name", "task", "data"]

    def same(table: Any, kind: Any) -> None:
        assert table["additionalProperties"] is False
        assert list(table["properties"]) == [f.name for f in dataclasses.fields(kind)]
        for name, hint in typing.get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                same(table["properties"][name], hint)

    same(schema, Line)
    properties = schema["properties"]
    assert "sensor.anomaly" in properties["task"]["enum"]
    assert "drift" in properties["retrain"]["properties"]["when"]["propertyNames"]["enum"]
    assert "openvino" in properties["target"]["properties"]["engines"]["items"]["enum"]
    assert properties["rollout"]["properties"]["decide"] == {
        "enum": ["observe", "ask", "auto"],
        "default": "ask",
    }
