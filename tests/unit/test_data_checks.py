from collections import Counter
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from genba.core.line import Check, Data
from genba.core.problem import Problem
from genba.data import intake as intakes
from genba.data.intake import Intake
from genba.data.roles import settle

ROWS: dict[str, list[Any]] = {
    "t": ["2024-01-01T00:00Z", "2024-01-01T00:10Z", "2024-01-01T00:20Z", "2024-01-01T00:30Z"],
    "who": ["a", "b", "a", "b"],
    "x": [1.0, 2.0, 3.0, 4.0],
    "y": [5.0, None, 7.0, 8.0],
}
DATA = Data(source="files:x", time="t", entity="who", inputs=("x",), output="y")


def data(**changes: Any) -> Data:
    fields = {name: getattr(DATA, name) for name in DATA.__dataclass_fields__}
    return Data(**(fields | changes))


def take(rows: dict[str, list[Any]], meaning: Data) -> tuple[pl.DataFrame, pl.DataFrame, Intake]:
    intake = Intake(meaning)
    good, bad = intake.take(pa.record_batch(rows))
    assert intake.read == good.height + bad.height + intake.skipped.total()
    assert intake.rejected.total() == bad.height
    return good, bad, intake


def reasons(changes: dict[str, list[Any]], **meaning: Any) -> list[str | None]:
    rows = ROWS | changes
    _, bad, _ = take(rows, data(**meaning))
    by_row = dict(zip(bad["row"], bad["reason"], strict=True))
    return [by_row.get(number) for number in range(len(rows["x"]))]


def test_good_rows_carry_code_time_row_and_numbers() -> None:
    good, bad, intake = take(ROWS, DATA)
    assert bad.height == 0
    assert intake.entities == ["a", "b"]
    assert good["code"].to_list() == [0, 1, 0, 1]
    assert good["time"].diff().to_list()[1:] == [600_000] * 3
    assert good["row"].to_list() == [0, 1, 2, 3]
    assert good["y"].to_list() == [5.0, None, 7.0, 8.0]
    assert good["label"].null_count() == 4


def test_rows_are_numbered_through_and_entities_keep_their_codes() -> None:
    intake = Intake(DATA)
    intake.take(pa.record_batch(ROWS))
    good, _ = intake.take(pa.record_batch(ROWS | {"who": ["b", "c", "b", "a"]}))
    assert good["row"].to_list() == [4, 5, 6, 7]
    assert good["code"].to_list() == [1, 2, 1, 0]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (Check(min=2), ["x is below 2", None, None, None]),
        (Check(max=3), [None, None, None, "x is above 3"]),
        (Check(min=2, max=3), ["x is below 2", None, None, "x is above 3"]),
        (Check(min=1, max=4), [None] * 4),
    ],
)
def test_ranges(check: Check, expected: list[str | None]) -> None:
    assert reasons({}, checks={"x": check}) == expected


def test_a_missing_value_is_kept_unless_it_is_required() -> None:
    assert reasons({}, checks={"y": Check(min=6)}) == ["y is below 6", None, None, None]
    assert reasons({}, checks={"y": Check(required=True)}) == [None, "y is missing", None, None]
    nan = {"y": [5.0, float("nan"), 7.0, 8.0]}
    assert reasons(nan, checks={"y": Check(required=True)})[1] == "y is missing"


def test_a_value_that_is_not_finite_is_rejected() -> None:
    assert reasons({"x": [1.0, float("inf"), float("-inf"), 4.0]}) == [
        None,
        "x is not finite",
        "x is not finite",
        None,
    ]


def test_a_row_without_time_or_entity_is_rejected() -> None:
    assert reasons({"t": ["2024-01-01", "soon", None, "2024-01-02"]}) == [
        None,
        "time is missing or unreadable",
        "time is missing or unreadable",
        None,
    ]
    assert reasons({"who": ["a", None, "a", "b"]})[1] == "entity is missing"


def test_allowed_words_of_a_column_that_is_no_sensor() -> None:
    state = {"state": ["run", "stop", None, "run"]}
    checks = {"state": Check(allowed=("run",))}
    assert reasons(state, checks=checks) == [None, "state is not allowed", None, None]
    good, _, intake = take(ROWS | state, data(checks=checks))
    assert good["state"].to_list() == ["run", None, "run"]
    assert intake.roles.columns[-1] == "state"


def test_checks_may_be_about_the_entity() -> None:
    assert reasons({}, checks={"who": Check(allowed=("a",))})[1] == "who is not allowed"


def test_a_row_has_one_reason_and_the_counts_add_up() -> None:
    rows = ROWS | {"x": [-1.0, 2.0, 3.0, 4.0], "y": [-1.0, 2.0, 3.0, 4.0]}
    meaning = data(checks={"x": Check(min=0), "y": Check(min=0)})
    _, bad, intake = take(rows, meaning)
    assert bad["reason"].to_list() == ["x is below 0"]
    assert bad["detail"].to_list() == ["-1.0"]
    assert intake.rejected == Counter({"x is below 0": 1})
    assert '"y":-1.0' in bad["values"][0]


def test_texts_of_a_source_without_types_are_read_as_numbers() -> None:
    assert reasons({"x": ["1", "two", "NaN", None]}) == [None, "x is not a number", None, None]


def test_an_extra_column_is_kept_and_is_no_sensor() -> None:
    good, _, intake = take(ROWS | {"loss": [0.0, 1.0, None, 2.0]}, data(checks={"loss": Check()}))
    assert good["loss"].to_list() == [0.0, 1.0, None, 2.0]
    assert intake.roles.sensors == ("x", "y")
    assert intake.roles.extras == ("loss",)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["normal", "Fault", "", "OK"], [0.0, 1.0, None, 0.0]),
        (["0", "1", "2", None], [0.0, 1.0, 2.0, None]),
        ([False, True, None, False], [0.0, 1.0, None, 0.0]),
        ([0, 1, None, 3], [0.0, 1.0, None, 3.0]),
    ],
)
def test_labels(words: list[Any], expected: list[float | None]) -> None:
    good, _, _ = take(ROWS | {"label_text": words}, data(label="label_text"))
    assert good["label"].to_list() == expected


def test_a_label_that_says_nothing_known_rejects_its_row() -> None:
    words = ["normal", "perhaps", "0", "1"]
    assert reasons({"said": words}, label="said")[1] == "label is not a number"


def test_rows_the_line_does_not_ask_for_are_skipped_not_rejected() -> None:
    meaning = data(
        since="2024-01-01T00:10Z",
        until="2024-01-01T00:30Z",
        entities=("a",),
        checks={"x": Check(max=3)},
    )
    good, bad, intake = take(ROWS, meaning)
    assert good["row"].to_list() == [2]
    assert bad.height == 0
    assert intake.skipped == {"before since": 1, "from until on": 1, "other entity": 1}


def test_a_period_needs_a_clock() -> None:
    with pytest.raises(Problem) as caught:
        Intake(data(time=None, since="2024-01-01"))
    assert caught.value.code == "G217"


def test_without_clock_and_entity_the_row_number_is_the_time() -> None:
    good, _, intake = take(ROWS, data(time=None, entity=None))
    assert good["time"].to_list() == [0, 1, 2, 3]
    assert intake.entities == ["all"]
    assert intake.clock is None


def test_times_that_go_backwards_are_counted_per_entity_and_over_batches() -> None:
    intake = Intake(DATA)
    minutes = ["00", "05", "10", "01"]
    first = ROWS | {"t": [f"2024-01-01T00:{m}Z" for m in minutes]}  # a 00, b 05, a 10, b 01
    intake.take(pa.record_batch(first))
    assert intake.out_of_order == 1
    later = ROWS | {"t": [f"2024-01-01T00:{m}Z" for m in ("09", "06", "11", "05")]}
    intake.take(pa.record_batch(later))  # a 09 is before a 10, b 05 before b 06
    assert intake.out_of_order == 3


def test_too_many_entities_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intakes, "MOST_ENTITIES", 1)
    with pytest.raises(Problem) as caught:
        take(ROWS, DATA)
    assert caught.value.code == "G212"
    assert "'who'" in caught.value.what


def test_a_sensor_that_cannot_be_a_number_is_a_problem() -> None:
    with pytest.raises(Problem) as caught:
        take(ROWS | {"x": [[1.0], [2.0], [3.0], [4.0]]}, DATA)
    assert caught.value.code == "G205"


SCHEMA = pa.schema(
    [("t", pa.string()), ("who", pa.string()), ("x", pa.float64()), ("n", pa.int64())]
)


def test_open_inputs_are_the_spare_numeric_columns() -> None:
    roles = settle(Data(source="f", time="t", entity="who", label="n"), SCHEMA)
    assert roles.inputs == ("x",)
    assert roles.columns == ("entity", "time", "x", "label", "split", "row")


def test_columns_a_source_sets_aside_are_no_inputs_unless_named() -> None:
    aside = SCHEMA.with_metadata({"extras": "n"})
    assert settle(Data(source="f"), aside).inputs == ("x",)
    assert settle(Data(source="f", inputs=("n",)), aside).inputs == ("n",)


@pytest.mark.parametrize(
    ("meaning", "code"),
    [
        (Data(source="f", inputs=("speed",)), "G204"),
        (Data(source="f", time="when", inputs=("x",)), "G204"),
        (Data(source="f", inputs=("x",), checks={"z": Check(min=0)}), "G204"),
        (Data(source="f", output="x", label="n"), "G215"),
        (Data(source="f", inputs=("x",), output="x"), "G205"),
    ],
)
def test_columns_that_cannot_be_are_problems(meaning: Data, code: str) -> None:
    with pytest.raises(Problem) as caught:
        settle(meaning, SCHEMA)
    assert caught.value.code == code


def test_a_sensor_may_not_have_a_name_of_ours() -> None:
    with pytest.raises(Problem) as caught:
        settle(Data(source="f", inputs=("row",)), pa.schema([("row", pa.float64())]))
    assert (caught.value.code, "'row'" in caught.value.what) == ("G205", True)
