import contextlib
import struct
from pathlib import Path

import gguf as library
import numpy as np
import pytest

from genba.core.problem import Problem
from genba.edge.gguf import read_gguf
from genba.edge.gguf_blocks import FORMS, READABLE, dequantise, quantise
from genba.learn.language.export import Typed, entry, gguf_bytes, pack, write_gguf
from genba.testing.tiny_talk import tiny_talk, tiny_weights

TYPES = library.GGMLQuantizationType


def rows(seed: int = 0, count: int = 7, width: int = 96) -> np.ndarray:
    made: np.ndarray = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    made[0, :32] = 0
    return made


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_written_as_the_reference_library_writes_them(form: str) -> None:
    array = rows()
    ours = quantise(array, form)
    theirs = library.quants.quantize(array, TYPES[form.upper()])
    assert ours.shape == theirs.view(np.uint8).shape
    read = dequantise(ours, form)
    wanted = library.quants.dequantize(theirs, TYPES[form.upper()])
    # Where a number lies in the middle of two, rounding may go the other way.
    assert (read == wanted).mean() > 0.999
    assert np.abs(read - array).max() <= np.abs(wanted - array).max() + 1e-6


@pytest.mark.parametrize("form", sorted(READABLE))
def test_numbers_are_read_as_the_reference_library_reads_them(form: str) -> None:
    theirs = library.quants.quantize(rows(1), TYPES[form.upper()])
    raw = np.ascontiguousarray(theirs).view(np.uint8).reshape(len(theirs), -1)
    assert np.array_equal(
        dequantise(raw, form), library.quants.dequantize(theirs, TYPES[form.upper()])
    )


def test_not_a_number_stays_one_in_bfloat16() -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 1.0]], dtype=np.float32)
    assert np.array_equal(dequantise(quantise(array, "bf16"), "bf16"), array, equal_nan=True)


def test_a_file_is_read_by_the_reference_library(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_talk(0, "q8_0"))
    reader = library.GGUFReader(path)
    ours = read_gguf(tiny_talk(0, "q8_0"))
    assert {t.name for t in reader.tensors} == set(ours.tensors)
    for tensor in reader.tensors:
        wanted = library.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(ours.array(tensor.name), wanted)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            assert ours.metadata[key] == pytest.approx(field.contents()), key


@pytest.mark.parametrize("quant", FORMS)
def test_other_weights_beside_the_same_vocabulary(quant: str) -> None:
    base = tiny_talk()
    wanted = tiny_weights(5)
    changed = {name: array for name, array in wanted.items() if "attn" in name}
    found = read_gguf(write_gguf(base, changed, quant))
    before = read_gguf(base)
    same = {"general.file_type", "general.quantization_version"}
    assert {k: v for k, v in found.metadata.items() if k not in same} == {
        k: v for k, v in before.metadata.items() if k not in same
    }
    tolerance = {"q8_0": 0.02, "q4_0": 0.3, "bf16": 0.01, "f16": 0.001, "f32": 0}[quant]
    for name in found.tensors:
        meant = changed.get(name, before.array(name))
        assert np.abs(found.array(name) - meant).max() <= tolerance * np.abs(meant).max() + 1e-9
        if meant.ndim == 1:
            assert found.tensors[name].kind.name == "f32"
    careful = found.tensors["token_embd.weight"].kind.name
    assert careful == ("q8_0" if quant == "q4_0" else quant)


def test_a_tensor_that_is_not_in_the_base_is_no_part_of_it() -> None:
    with pytest.raises(ValueError, match="no tensor"):
        write_gguf(tiny_talk(), {"blk.9.attn_q.weight": np.zeros((64, 64), dtype=np.float32)})
    with pytest.raises(ValueError, match="shape"):
        write_gguf(tiny_talk(), {"token_embd.weight": np.zeros((64, 64), dtype=np.float32)})


def test_rows_that_are_not_whole_blocks_are_written_as_halves() -> None:
    assert pack("odd.weight", np.zeros((2, 40), dtype=np.float32), "q4_0")[2] == "f16"


def test_every_cut_is_noticed() -> None:
    whole = tiny_talk()
    for size in (0, 3, 4, 20, 24, 100, 5000, 12_000, len(whole) - 1):
        with pytest.raises(Problem) as caught:
            read_gguf(whole[:size])
        assert caught.value.code == "G642"


def test_any_changed_byte_of_the_head_is_read_or_refused() -> None:
    whole = bytearray(tiny_talk())
    chance = np.random.default_rng(3)
    for at in chance.integers(0, 9_000, size=400).tolist():
        broken = bytearray(whole)
        broken[at] ^= int(chance.integers(1, 256))
        with contextlib.suppress(Problem):  # anything else is a fault
            found = read_gguf(bytes(broken))
            assert sum(t.size for t in found.tensors.values()) <= len(whole)


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<4sIQQ", b"GGUF", 1, 0, 0),
        struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 0),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1 << 60),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 1 << 62),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 4, 1 << 60),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1)
        + b"a"
        + struct.pack("<IIQ", 9, 9, 1)
        + bytes(9),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1) + b"a" + struct.pack("<I", 77),
        struct.pack("<4sIQQQ", b"GGUF", 3, 1, 0, 1) + b"t" + struct.pack("<I", 9) + bytes(40),
        struct.pack("<4sIQQQ", b"GGUF", 3, 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 0, 0, 0),
        struct.pack("<4sIQQQ", b"GGUF", 3, 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 4, 99, 0),
        struct.pack("<4sIQQQ", b"GGUF", 3, 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 1 << 50, 0, 0),
    ],
)
def test_a_hostile_head_is_refused_without_memory_being_asked_for(head: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read_gguf(head)
    assert caught.value.code == "G642"


def test_tensors_need_names_of_their_own_and_a_usual_alignment() -> None:
    one = pack("a", np.zeros((2, 32), dtype=np.float32), "f32")
    for data in (
        gguf_bytes([], [one, one]),
        gguf_bytes([entry("general.alignment", Typed(3))], [one]),
        gguf_bytes([entry("general.alignment", "x")], [one]),
    ):
        with pytest.raises(Problem):
            read_gguf(data)


def test_entries_are_what_they_should_be_or_refused() -> None:
    values = {"text": "a", "whole": Typed(3), "number": 1.5, "yes": True, "few": Typed([1, 2], "i")}
    file = read_gguf(gguf_bytes([entry(k, v) for k, v in values.items()], []))
    assert (file.text("text"), file.whole("whole"), file.number("number")) == ("a", 3, 1.5)
    assert file.metadata["yes"] is True
    assert file.metadata["few"] == [1, 2]
    assert file.whole("none", 4) == 4
    for ask in (lambda: file.text("whole"), lambda: file.whole("yes"), lambda: file.number("none")):
        with pytest.raises(Problem) as caught:
            ask()
        assert caught.value.code == "G642"


def test_a_format_that_is_only_known_by_its_size_is_not_read_as_numbers() -> None:
    data = bytearray(gguf_bytes([], [pack("a", np.zeros((1, 256), dtype=np.float32), "f32")]))
    at = data.index(b"a", 24) + 1 + 4 + 16
    data[at : at + 4] = struct.pack("<I", 12)
    file = read_gguf(bytes(data))
    with pytest.raises(Problem) as caught:
        file.array("a")
    assert caught.value.code == "G642"
