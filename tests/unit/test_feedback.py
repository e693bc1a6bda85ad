"""What becomes of every row of feedback, and what all of them amount to."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.data.feedback import effective_labels, read_file, receive
from genba.data.feedback.intake import LATE_AFTER_MS
from genba.data.feedback.labels import majority
from genba.data.feedback.rows import parse
from genba.loop.queue import queue
from genba.store.home import Store
from tests.unit.feedback_store import (
    MEANING,
    NOW,
    STEP_MS,
    T0,
    about,
    capture,
    label,
    last_event,
    outcomes,
    prepare,
    say,
    usable,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        prepare(opened)
        yield opened


def test_a_label_by_prediction_is_accepted_and_gets_its_entity_and_time(store: Store) -> None:
    capture(store)
    assert outcomes(say(store, about(3, "anomaly"))) == {"accepted": 1}
    (row,) = store.feedback.all("farm")
    assert (row.entity, row.time_ms, row.status) == ("R1", T0 + 3 * STEP_MS, "accepted")
    assert usable(store) == {("R1", T0 + 3 * STEP_MS): 1.0}


def test_a_label_by_entity_and_time_finds_its_prediction(store: Store) -> None:
    capture(store)
    say(store, {"entity": "R1", "time": "2023-11-14T22:43:20Z", "value": "fault"})
    (row,) = store.feedback.all("farm")
    assert (row.prediction, row.time_ms) == ("s1-3", T0 + 3 * STEP_MS)


def test_a_time_may_be_off_by_half_a_step_and_not_more(store: Store) -> None:
    capture(store)
    near, far = T0 + 3 * STEP_MS + STEP_MS // 2 - 1, T0 + 20 * STEP_MS
    report = say(
        store,
        {"entity": "R1", "time": near, "value": "ok"},
        {"entity": "R1", "time": far, "value": "ok"},
        {"entity": "R2", "time": near, "value": "ok"},
    )
    assert outcomes(report) == {"accepted": 1, "unknown": 2}


def test_of_two_near_predictions_the_nearer_counts(store: Store) -> None:
    capture(store)
    say(store, {"entity": "R1", "time": T0 + 2 * STEP_MS + STEP_MS // 2, "value": "ok"})
    (row,) = store.feedback.all("farm")
    assert row.prediction in ("s1-2", "s1-3")
    say(store, {"entity": "R1", "time": T0 + 4 * STEP_MS + 1_000, "value": "ok"})
    assert store.feedback.all("farm")[-1].prediction == "s1-4"


def test_lines_without_entities_are_joined_by_time(store: Store) -> None:
    capture(store, entity=None)
    assert outcomes(say(store, {"time": T0, "value": "ok"})) == {"accepted": 1}


def test_the_answer_counts_before_a_shadows_opinion(store: Store) -> None:
    capture(store, package="q", role="shadow", server="s2")
    capture(store)
    capture(store, package="q", role="shadow", server="s3")
    say(store, {"entity": "R1", "time": T0, "value": "ok"})
    assert store.feedback.all("farm")[0].prediction == "s1-0"


def test_a_prediction_of_a_shadow_can_be_labelled_but_is_nobodys_false_alarm(store: Store) -> None:
    capture(store, package="q", role="shadow", server="s2")
    assert outcomes(say(store, {**about(1), "prediction": "s2-1"})) == {"accepted": 1}
    assert last_event(store)["false_alarms"] == 0


def test_the_same_said_again_is_a_duplicate_and_counts_once(store: Store) -> None:
    capture(store)
    report = say(store, about(3), about(3, "ok"))
    assert outcomes(report) == {"accepted": 1, "duplicate": 1}
    moment = {"entity": "R1", "time": T0 + 3 * STEP_MS, "value": "normal", "author": "ada"}
    assert outcomes(say(store, moment)) == {"duplicate": 1}
    assert len(usable(store)) == 1


def test_the_same_from_somebody_else_is_a_second_voice(store: Store) -> None:
    capture(store)
    assert outcomes(say(store, about(3), about(3, author="bob"))) == {"accepted": 2}


def test_whoever_changes_their_mind_is_heard_last(store: Store) -> None:
    capture(store)
    say(store, about(3, "anomaly"))
    assert outcomes(say(store, about(3, "normal"), now_ms=NOW + 1)) == {"accepted": 1}
    assert list(usable(store).values()) == [0.0]
    assert outcomes(say(store, about(3, "anomaly"), now_ms=NOW + 2)) == {"accepted": 1}
    assert list(usable(store).values()) == [1.0]


def test_a_tie_is_left_out_and_the_majority_decides(store: Store) -> None:
    capture(store)
    report = say(store, about(3, "anomaly"), about(3, "normal", "bob"))
    assert outcomes(report) == {"accepted": 1, "contradictory": 1}
    assert usable(store) == {}
    assert outcomes(say(store, about(3, "normal", "eve"), now_ms=NOW + 1)) == {"contradictory": 1}
    assert list(usable(store).values()) == [0.0]


def test_numbers_of_different_columns_do_not_contradict_each_other(store: Store) -> None:
    def number(value: str) -> float:
        return float(value.rpartition("=")[2])

    capture(store)
    plain = replace(MEANING, label=number)
    rows = [about(3, "load = 12.5"), about(3, "heat=3"), about(3, "heat = 4", "bob"), about(3, "7")]
    report = receive(store, "farm", rows, source="api", meaning=plain, now_ms=NOW)
    assert outcomes(report) == {"accepted": 3, "contradictory": 1}
    said = [(one.value, one.label) for one in effective_labels(store, "farm", label=number)]
    assert said == [("7", 7.0), ("load = 12.5", 12.5)]
    more = [about(3, "heat = 3.2", "eve"), about(3, "load=13")]
    assert outcomes(receive(store, "farm", more, source="api", meaning=plain, now_ms=NOW + 1)) == {
        "accepted": 1,
        "contradictory": 1,
    }
    said = [(one.value, one.label) for one in effective_labels(store, "farm", label=number)]
    assert said == [("7", 7.0), ("heat = 3.2", 3.2), ("load=13", 13.0)]


def test_contradictory_labels_do_not_ring_the_trigger(store: Store) -> None:
    capture(store)
    say(store, about(3, "anomaly"), about(3, "normal", "bob"))
    assert last_event(store)["labels"] == 1


def test_an_unknown_prediction_waits_until_it_appears(store: Store) -> None:
    report = say(store, about(3, "anomaly"), {"entity": "R1", "time": T0, "value": "ok"})
    assert outcomes(report) == {"unknown": 2}
    assert usable(store) == {}
    assert last_event(store)["labels"] == 0
    capture(store)
    assert usable(store) == {("R1", T0 + 3 * STEP_MS): 1.0, ("R1", T0): 0.0}


@pytest.mark.parametrize("name", ["nonsense", "s1-", "s1-x", "s1-99", "-3", "s9-3"])
def test_ids_nobody_gave_out_are_unknown(store: Store, name: str) -> None:
    capture(store)
    assert outcomes(say(store, {"prediction": name, "value": "ok"})) == {"unknown": 1}


def test_late_labels_teach_and_do_not_ring(store: Store) -> None:
    capture(store)
    late = T0 + 3 * STEP_MS + LATE_AFTER_MS + 1
    assert outcomes(say(store, about(3, "anomaly"), now_ms=late)) == {"late": 1}
    assert last_event(store)["labels"] == 0
    assert list(usable(store).values()) == [1.0]


def test_comments_are_kept_and_are_no_labels(store: Store) -> None:
    capture(store)
    note = {"prediction": "s1-3", "comment": "ice on the blade", "author": "ada"}
    assert outcomes(say(store, note)) == {"accepted": 1}
    assert outcomes(say(store, note, {**note, "comment": "gone"})) == {
        "duplicate": 1,
        "accepted": 1,
    }
    assert usable(store) == {}
    assert last_event(store)["labels"] == 0


def test_the_batch_event_says_how_alarms_fared(store: Store) -> None:
    capture(store)
    say(store, about(1, "anomaly"), about(3), about(5), about(2, "fault"), about(4))
    body = last_event(store)
    assert {k: body[k] for k in ("labels", "confirmed", "false_alarms", "missed")} == {
        "labels": 5,
        "confirmed": 1,
        "false_alarms": 2,
        "missed": 1,
    }
    assert (body["source"], body["rows"]) == ("api", 5)


@pytest.mark.parametrize(
    ("row", "code", "word"),
    [
        ({"predicton": "s1-1", "value": "ok"}, "G802", "did you mean prediction?"),
        ({"value": "ok"}, "G803", "neither a prediction nor a time"),
        ({"prediction": "s1-1", "kind": "label"}, "G803", "needs a value"),
        ({"prediction": "s1-1", "kind": "lable", "value": "ok"}, "G804", "kind must be one of"),
        ({"prediction": "s1-1", "value": "maybe"}, "G801", "neither anomaly nor normal"),
        ({"prediction": "s1-1", "value": ["ok"]}, "G804", "value must be text"),
        ({"prediction": "s1-1", "value": "ok", "comment": "x" * 5_000}, "G804", "4096 are kept"),
        ({"entity": "R1", "time": "soon", "value": "ok"}, "G804", "neither a time"),
        ({"entity": "R1", "time": -5, "value": "ok"}, "G804", "neither a time"),
        ({"entity": "R1", "time": "nan", "value": "ok"}, "G804", "neither a time"),
        ({"entity": "R1", "time": True, "value": "ok"}, "G804", "neither a time"),
    ],
)
def test_what_cannot_be_understood_is_rejected_with_its_row(
    store: Store, row: dict[str, Any], code: str, word: str
) -> None:
    report = say(store, about(0), row)
    (bad,) = report.rejected
    assert (bad.where, bad.code) == ("row 2", code)
    assert word in bad.reason
    assert bad.tries
    assert last_event(store)["rejected"] == 1


def test_times_are_read_as_iso_or_milliseconds() -> None:
    def time_ms(text: Any) -> int | None:
        return parse({"time": text, "value": "ok"}, "row 1", label).time_ms

    assert time_ms("1970-01-01") == 0
    assert time_ms("1970-01-01 01:00:00+01:00") == 0
    assert time_ms(1_500) == time_ms("1500") == time_ms("1970-01-01T00:00:01.5Z") == 1_500


def test_empty_fields_are_absent(store: Store) -> None:
    capture(store)
    row = {**about(0), "entity": "", "time": None, "comment": "  ", "author": ""}
    assert outcomes(say(store, row)) == {"accepted": 1}
    assert store.feedback.all("farm")[0].author == "anonymous"


def test_predictions_without_a_clock_are_joined_by_id(store: Store) -> None:
    capture(store, clock=False)
    assert outcomes(say(store, about(3, "anomaly"), about(3, "anomaly"))) == {
        "accepted": 1,
        "duplicate": 1,
    }
    (row,) = effective_labels(store, "farm", label=label)
    assert (row.prediction, row.time_ms) == ("s1-3", None)


def test_a_damaged_capture_hides_only_its_own_predictions(store: Store) -> None:
    capture(store, rows=5)
    capture(store, rows=5, first=5)
    newest = store.ledger.find("capture")[0]
    path = store.blobs.path(newest.body["blob"])
    path.chmod(0o644)
    path.write_bytes(b"rust")
    assert outcomes(say(store, about(3), about(7))) == {"accepted": 1, "unknown": 1}
    assert queue(store, "farm")


def test_a_line_nobody_knows(store: Store) -> None:
    with pytest.raises(Problem, match="G810"):
        receive(store, "ghost", [], source="api")


def test_the_task_of_the_line_says_what_words_mean(store: Store) -> None:
    capture(store)
    rows = [about(3, "Fault"), about(4, "perhaps")]
    report = receive(store, "farm", rows, source="cli", now_ms=NOW)
    assert outcomes(report) == {"accepted": 1, "rejected": 1}
    assert report.rejected[0].code == "G801"
    assert [r.label for r in effective_labels(store, "farm")] == [1.0]


def test_large_intakes_go_in_bounded_batches(store: Store) -> None:
    capture(store, rows=1_500)
    report = receive(
        store, "farm", (about(n) for n in range(1_500)), source="csv", meaning=MEANING, now_ms=NOW
    )
    assert (report.accepted, len(report.batches)) == (1_500, 2)


VOICES = st.lists(
    st.tuples(st.sampled_from(["ada", "bob", "eve"]), st.sampled_from(["normal", "fault"])),
    max_size=12,
)


@given(voices=VOICES)
def test_what_counts_is_the_majority_of_last_words(
    tmp_path_factory: pytest.TempPathFactory, voices: list[tuple[str, str]]
) -> None:
    with Store.open(tmp_path_factory.mktemp("voices")) as store:
        capture(store, rows=1)
        for tick, (author, word) in enumerate(voices):
            say(store, about(0, word, author), now_ms=NOW + tick)
        last = {author: label(word) for author, word in voices}
        agreed = majority(last.values())
        assert list(usable(store).values()) == ([] if agreed is None else [agreed])
        rows = store.feedback.all("farm")
        assert len(rows) == len(voices)
        changes = sum(
            len(list(itertools.groupby(w for a, w in voices if a == author)))
            for author in ("ada", "bob", "eve")
        )
        assert sum(r.status != "duplicate" for r in rows) == changes


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_file_goes_in(store: Store, tmp_path: Path, separator: str) -> None:
    capture(store)
    lines = ["prediction,value,author", "s1-1,anomaly,ada", "", ",,", "s1-2,maybe,ada"]
    path = write(tmp_path / "f.csv", "\n".join(lines).replace(",", separator), "utf-8-sig")
    report = receive(store, "farm", read_file(path), source="csv", meaning=MEANING, now_ms=NOW)
    assert outcomes(report) == {"accepted": 1, "rejected": 1}
    assert report.rejected[0].where == f"{path}:5"


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("", "G805", ":1"),
        ("prediction,valu\ns1-1,ok", "G802", ":1"),
        ("value,author\nok,ada", "G805", ":1"),
        ("prediction,value\ns1-1,ok,extra", "G805", ":2"),
        ('prediction,value\n"s1-1,ok', "G805", ""),
    ],
)
def test_a_csv_file_that_is_none_says_where(
    tmp_path: Path, text: str, code: str, where: str
) -> None:
    path = write(tmp_path / "f.csv", text)
    with pytest.raises(Problem, match=code) as caught:
        list(read_file(path))
    assert caught.value.where == f"{path}{where}"


def test_a_csv_file_in_another_encoding_or_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "prediction,comment\ns1-1,Kühlung", "latin-1")
    for wrong in (path, tmp_path / "gone.csv", tmp_path):
        with pytest.raises(Problem, match="G805"):
            list(read_file(wrong))
