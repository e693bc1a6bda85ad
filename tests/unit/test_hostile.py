"""What an attacker would try on the parts of issue 6, each with a defined outcome.

The table with every case and its test is `docs/edge/hostile.md`.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.data.fusion.pieces import NEVER, Known, _rows_at
from genba.edge.buffer import Buffer
from genba.edge.links.payload import Unreadable, read_json, text_of
from genba.edge.oms import verify
from genba.edge.trust import Trust, add_key
from genba.targets.answers import MOST_BYTES, read_answer
from genba.ui.cli.problems import render_problem

GOLDEN = Path(__file__).parents[1] / "golden" / "oms"
HUGE = 1 << 40  # bytes of a file that takes no room on the disk and hours to read


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    add_key(tmp_path / "state", next(GOLDEN.rglob("key.pub.pem")).read_bytes())
    return Trust.at(tmp_path / "state")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = next(GOLDEN.rglob("model.sig")).parent
    return Path(shutil.copytree(model, tmp_path / "model"))


def refused(folder: Path, trust: Trust) -> Problem:
    with pytest.raises(Problem) as caught:
        verify(folder, trust.find)
    assert caught.value.code == "G670"
    return caught.value


def test_a_huge_file_that_was_added_is_refused_before_a_byte_of_it_is_read(
    folder: Path, trust: Trust
) -> None:
    with (folder / "extra.bin").open("wb") as file:
        file.truncate(HUGE)
    assert refused(folder, trust).why == "extra.bin was not signed."


def test_folders_within_folders_end(folder: Path, trust: Trust) -> None:
    at = folder
    for _ in range(600):
        at = at / "a"
    at.mkdir(parents=True)
    (at / "x").write_text("x")
    assert "folders deep" in refused(folder, trust).why


def test_a_terminal_obeys_nothing_that_a_device_said() -> None:
    problem = Problem("G613", "gone\x1b[2J", where="\x1b]0;x\x07", why="\x9b31m", tries=["a\rb"])
    told = str(render_problem(problem)).replace("\n", "")
    assert told.isprintable()
    assert "\\x1b[2J" in told


@pytest.mark.parametrize(
    "output",
    [
        b'{"format": 1, "machine": {"processor": "\x1b[2J"}}',
        b'{"format": 1, "machine": {"processor": "\\u001b[2J"}}',
        b"{" * 100_000,
        b'{"format": 1e400}',
        b"x" * (MOST_BYTES + 1),
    ],
)
def test_an_answer_that_no_probe_gives(output: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read_answer(output, "nonce", "line7")
    assert caught.value.code == "G615"


@pytest.mark.parametrize("name", ["\ud800", "a\x00b", "x" * 513, "\x1b[2J", "a\nb"])
def test_a_message_whose_id_cannot_be_kept_is_no_reading(name: str, tmp_path: Path) -> None:
    # It would end the service, and a broker brings it again: a crash loop.
    (body,) = read_json(b'{"id": "x", "v": 1}')
    with pytest.raises(Unreadable):
        text_of({**body, "id": name}, "id")
    buffer = Buffer(tmp_path / "b.db", days=1, most_bytes=1 << 20)
    assert buffer.put("prediction", 1, text_of({"id": "Prüfstand 7"}, "id"), b"{}") == "kept"


@pytest.mark.parametrize(
    "payload", [b"1" * 5_000, b"[" * 100_000, b"\xff\xfe", b"", b"[]", b"[1]", b'{"a": 1']
)
def test_a_payload_that_is_no_message(payload: bytes) -> None:
    with pytest.raises(Unreadable):
        read_json(payload)


def test_a_joined_clock_thousands_of_years_off_finds_the_same_rows() -> None:
    # Machine and time do not fit into one 64-bit number then; nothing may be mixed up.
    machines = 50_000
    code = np.repeat(np.arange(machines), 2)
    time = np.tile(np.array([-62_135_596_800_000, 253_402_300_799_000]), machines)
    wide = np.zeros((len(code), 1))
    known = Known(code=code, time=time, value=wide, seen=time[:, None], sum=wide, count=wide)
    asked = np.array([0, 7, machines - 1, machines - 1])
    moments = np.array([0, 253_402_300_799_000, 0, NEVER])
    assert _rows_at(known, asked, moments).tolist() == [0, 15, 2 * machines - 2, -1]
