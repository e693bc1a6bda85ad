from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.data.clock import Clock, moment

NOON = datetime(2026, 3, 31, 12, 5, 6, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)


def read(*texts: object) -> list[int | None]:
    return Clock("t").read(pl.Series(list(texts))).to_list()


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-31T12:05:06Z",
        "2026-03-31T14:05:06+02:00",
        "2026-03-31 14:05:06+0200",
        "2026-03-31 14:05:06.000 +02:00",
        "2026-03-31 12:05:06",
        "2026-03-31 12:05:06,000",
        "2026/03/31 12:05:06",
        "31.03.2026 12:05:06",
        "31/03/2026 12:05:06",
        "31-03-2026 12:05:06",
        "03/31/2026 12:05:06",
        "03/31/2026 12:05:06 PM",
        "20260331T120506",
        "20260331T120506Z",
        "20260331T140506+0200",
        "20260331120506",
        "2026-03-31 12:05:06 UTC",
    ],
)
def test_common_forms_are_read(text: str) -> None:
    assert read(text) == [NOON_MS]
    assert read(text, "2026-03-31T12:05:06Z")[0] == NOON_MS  # also beside another form


@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000, 1_000_000_000])
def test_counts_since_1970_are_read_in_any_unit(scale: int) -> None:
    seconds = NOON_MS // 1000
    assert read(seconds * scale) == [NOON_MS]
    assert read(str(seconds * scale)) == [NOON_MS]


def test_fractions_of_seconds_and_holes_in_counts() -> None:
    assert read(1.5, float("nan"), float("inf"), None) == [1500, None, None, None]


def test_dates_as_whole_numbers_are_dates_not_counts() -> None:
    day = int(datetime(2026, 3, 31, tzinfo=UTC).timestamp() * 1000)
    assert read(20260331) == read("20260331") == [day]
    assert read(20260331120506) == [NOON_MS]
    assert read(202603311205) == read("202603311205") == [NOON_MS - 6_000]
    assert read("20260331", "soon", "nan") == [day, None, None]


@given(
    st.lists(
        st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001  # counted in UTC
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([1, 1_000, 1_000_000]),
    st.booleans(),
)
def test_counts_in_text_are_what_they_count(
    moments: list[datetime], per_s: int, beside_a_date: bool
) -> None:
    seconds = [round(m.replace(tzinfo=UTC).timestamp()) for m in moments]
    texts = [str(s * per_s) for s in seconds]
    more, wanted = ([NOON.isoformat()], [NOON_MS]) if beside_a_date else ([], [])
    assert read(*texts, *more) == [s * 1000 for s in seconds] + wanted


def test_counts_that_look_like_a_date_of_long_ago() -> None:
    assert read("1711122233445", "1700000000000") == [1711122233445, 1700000000000]
    assert read("1700000000000", "not yet", None) == [1700000000000, None, None]


def test_a_batch_of_counts_decides_for_those_behind_it() -> None:
    clock = Clock("t")
    clock.read(pl.Series(["1700000000"]))
    assert clock.read(pl.Series(["20260331"])).to_list() == [20260331_000]
    assert clock.read(pl.Series([20260331])).to_list() == [20260331_000]
    assert clock.read(pl.Series(["later"])).to_list() == [None]
    assert clock.formats["s since 1970"] == 3


@pytest.mark.parametrize("text", ["31.03.26 12:05:06", "26-03-31 12:05", "31/03/26", "03-31-26"])
def test_a_year_of_two_digits_is_not_guessed(text: str) -> None:
    with pytest.raises(Problem) as caught:
        read(text)
    assert caught.value.code == "G207"


def test_typed_columns() -> None:
    aware = pl.Series([NOON]).dt.cast_time_unit("us")
    naive = pl.Series([NOON.replace(tzinfo=None)])
    clock = Clock("t")
    assert clock.read(aware).to_list() == clock.read(naive).to_list() == [NOON_MS]
    assert clock.naive == 1
    assert Clock("t").read(pl.Series([NOON.date()])).to_list() == [NOON_MS - NOON_MS % 86_400_000]


def test_naive_times_are_utc_and_counted() -> None:
    clock = Clock("t")
    clock.read(pl.Series(["2026-03-31 12:05:06", None]))
    clock.read(pl.Series(["2026-03-31 12:05", "2026-03-31T12:05:06Z"]))
    assert clock.notes()["without_offset_taken_as_utc"] == 2


def test_what_is_no_time_is_null_in_a_later_row() -> None:
    assert read("2026-03-31 12:05:06", "soon", None) == [NOON_MS, None, None]
    assert read("2026-02-30 12:05:06", "2026-03-31 12:05:06") == [None, NOON_MS]


def test_day_and_month_are_told_apart_by_the_first_batch() -> None:
    clock = Clock("t")
    clock.read(pl.Series(["31/03/2026", "01/02/2026"]))
    assert clock.read(pl.Series(["01/02/2026"])).to_list() == [moment("2026-02-01", "")]


@pytest.mark.parametrize("texts", [["01/02/2026"], ["31/01/2026", "01/31/2026"]])
def test_an_ambiguous_date_is_asked_about(texts: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        read(*texts)
    assert caught.value.code == "G207"
    assert texts[0] in caught.value.what


def test_a_column_without_times_is_refused_by_example() -> None:
    with pytest.raises(Problem) as caught:
        read("R80711", "R80721")
    assert caught.value.code == "G207"
    assert "'R80711'" in caught.value.what


def test_an_empty_column_is_no_proof_of_anything() -> None:
    assert read(None) == [None]


@given(
    when=st.datetimes(datetime(1975, 1, 1), datetime(2090, 1, 1)).map(  # noqa: DTZ001  # zone below
        lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000)
    ),
    minutes=st.integers(-14 * 60, 14 * 60),
)
def test_every_offset_gives_the_same_moment(when: datetime, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    aware = when.replace(tzinfo=UTC)
    wanted = round(aware.timestamp() * 1000)
    assert read(aware.astimezone(zone).isoformat(), "2026-03-31T12:05:06Z")[0] == wanted


def test_moments_of_a_line_file() -> None:
    assert moment("2026-03-31T14:05:06+02:00", "data.since") == NOON_MS
    with pytest.raises(Problem) as caught:
        moment("last week", "data.since")
    assert (caught.value.code, caught.value.where) == ("G217", "data.since")
