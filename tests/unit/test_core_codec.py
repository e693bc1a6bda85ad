"""Plain data and dataclasses: what is written comes back, what does not fit is refused by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core import resolve as resolving
from genba.core.codec import decode, encode
from genba.core.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Part:
    weight: float
    name: str = "part"


@dataclass(frozen=True, kw_only=True)
class Whole:
    count: int
    kind: Literal["new", "old"] = "new"
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = field(default_factory=dict)
    size: int | str | None = None
    limit: float | None = None
    ready: bool = False
    words: tuple[str, ...] = ()
    anything: Any = None


TEXT = st.text(max_size=5)
PARTS = st.builds(Part, weight=st.floats(allow_nan=False, allow_infinity=False), name=TEXT)
WHOLES = st.builds(
    Whole,
    count=st.integers(),
    kind=st.sampled_from(["new", "old"]),
    parts=st.lists(PARTS, max_size=3).map(tuple),
    by_name=st.dictionaries(TEXT, PARTS, max_size=3),
    size=st.none() | st.integers() | TEXT,
    limit=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ready=st.booleans(),
    words=st.lists(TEXT, max_size=3).map(tuple),
    anything=st.none() | st.lists(st.integers(), max_size=2),
)


@given(WHOLES)
def test_what_is_written_as_json_comes_back(whole: Whole) -> None:
    assert decode(Whole, json.loads(json.dumps(encode(whole)))) == whole


@pytest.mark.parametrize(
    ("data", "where", "wanted"),
    [
        ({}, "whole.count", "a whole number"),
        ({"count": 1.5}, "whole.count", "a whole number"),
        ({"count": True}, "whole.count", "a whole number"),
        ({"count": 1, "kind": "odd"}, "whole.kind", "new"),
        ({"count": 1, "parts": {"weight": 1}}, "whole.parts", "a list"),
        ({"count": 1, "parts": "text"}, "whole.parts", "a list"),
        ({"count": 1, "parts": [{}]}, "whole.parts[0].weight", "a number"),
        ({"count": 1, "parts": [3]}, "whole.parts[0]", "a table"),
        ({"count": 1, "by_name": [1]}, "whole.by_name", "a table"),
        ({"count": 1, "by_name": {"a": {"weight": "1"}}}, "whole.by_name.a.weight", "a number"),
        ({"count": 1, "size": 1.5}, "whole.size", "a whole number or text"),
        ({"count": 1, "limit": "high"}, "whole.limit", "a number"),
        ({"count": 1, "ready": 1}, "whole.ready", "true or false"),
        ({"count": 1, "words": [1]}, "whole.words[0]", "text"),
        ([], "whole", "a table"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_stands(data: Any, where: str, wanted: str) -> None:
    with pytest.raises(Problem) as caught:
        decode(Whole, data, where="whole")
    problem = caught.value
    assert (problem.code, problem.where) == ("G103", where)
    assert wanted in f"{problem.what} {problem.why} {' '.join(problem.tries)}"


@dataclass(frozen=True, kw_only=True)
class Strict:
    tables: Mapping[str, float]
    words: tuple[str, ...]
    part: Part
    choice: Literal["a", "b"]
    either: int | None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tables", "a table"),
        ("words", "a list"),
        ("part", "a table"),
        ("choice", "one of a, b"),
        ("either", "a whole number"),
    ],
)
def test_what_is_missing_is_described(name: str, wanted: str) -> None:
    whole = {"tables": {}, "words": [], "part": {"weight": 1}, "choice": "a", "either": 1}
    with pytest.raises(Problem) as caught:
        decode(Strict, {key: value for key, value in whole.items() if key != name})
    assert caught.value.where == name
    assert caught.value.why == f"It must be {wanted}."


def test_a_misspelt_key_is_answered_with_the_right_one() -> None:
    with pytest.raises(Problem) as caught:
        decode(Whole, {"count": 1, "parst": []})
    assert caught.value.code == "G102"
    assert "parts" in str(caught.value)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A catalog of engines: one that works, two without their library, one that is broken."""
    table = {
        "good": "json:JSONDecoder",
        "absent": "library_that_is_nowhere.engine:Engine",
        "extra": "openvino.that_is_nowhere:Engine",
        "broken": "genba.no_such_module:Engine",
    }
    monkeypatch.setattr(resolving, "names", lambda _kind: table)
    return table


def test_a_library_that_is_missing_is_named(engines: dict[str, str]) -> None:
    assert resolving.resolve("engine", "good") is json.JSONDecoder
    tries: list[str] = []
    for name in ("absent", "extra"):
        with pytest.raises(Problem) as caught:
            resolving.resolve("engine", name)
        assert caught.value.code == "G901"
        tries += caught.value.tries
    assert tries == ["pip install library_that_is_nowhere", 'pip install "genba[openvino]"']
    del engines["broken"]
    assert resolving.installed("engine") == ("good",)


@pytest.mark.usefixtures("engines")
def test_a_module_of_genba_that_is_missing_is_a_mistake_of_genba() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"genba\.no_such_module"):
        resolving.resolve("engine", "broken")
