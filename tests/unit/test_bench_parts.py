"""Messages in a stream that is cut anywhere, and timing engines that fail."""

import os
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.edge.bench import (
    SAMPLE_IMAGES,
    SAMPLE_ROWS,
    SAMPLE_TEXTS,
    _most,
    as_frame,
    of_frame,
    refusal,
    work,
)
from genba.edge.frames import MAGIC, Incoming, Message, pack
from genba.edge.tensors import read_tensors, write_tensors
from genba.edge.texts import as_bytes
from genba.edge.timing import BATCH_ROWS, REPEATS, Use, timings
from genba.edge.warden import available_mib, memory_mib, status_mib
from genba.testing.graphs import small_batch, small_graph


class TestFrames:
    @given(
        st.lists(st.tuples(st.text(max_size=9), st.lists(st.binary(max_size=40), max_size=3))),
        st.integers(1, 50),
        st.binary(max_size=60).filter(lambda noise: MAGIC[:1] not in noise),
    )
    def test_messages_come_out_as_they_went_in_wherever_the_stream_is_cut(
        self, said: list[tuple[str, list[bytes]]], step: int, noise: bytes
    ) -> None:
        stream = noise + b"".join(pack({"say": words}, *frames) for words, frames in said)
        incoming = Incoming(noise=1000)
        found = [
            message
            for at in range(0, len(stream), step)
            for message in incoming.feed(stream[at : at + step])
        ]
        assert found == [Message(header={"say": w}, frames=tuple(f)) for w, f in said]

    @pytest.mark.parametrize(
        "stream",
        [
            b"Welcome" * 9,
            MAGIC + b"\xff\xff\xff\xff",
            MAGIC + b"\x02\0\0\0{}",
            MAGIC + b"\x02\0\0\0[]",
            MAGIC + b"\x02\0\0\0{]",
            MAGIC + b'\x0f\0\0\0{"frames":[-1]}',
            MAGIC + b'\x12\0\0\0{"frames":["one"]}',
        ],
    )
    def test_what_is_no_message_is_refused(self, stream: bytes) -> None:
        with pytest.raises(ValueError, match=r".*"):
            list(Incoming().feed(stream))

    def test_noise_between_messages_is_refused_too(self) -> None:
        incoming = Incoming(noise=100)
        assert len(list(incoming.feed(b"hello\n" + pack({})))) == 1
        with pytest.raises(ValueError, match="no message"):
            list(incoming.feed(b"bye\n" * 5))


class TestTensors:
    def test_every_kind_survives_and_what_a_file_cannot_hold_is_refused(self) -> None:
        kinds = ("f8", "f4", "f2", "i8", "i4", "u1", "?")
        tensors = {k: np.arange(6).reshape(2, 3).astype(k) for k in kinds} | {
            "empty": np.zeros((0, 4), dtype=np.float32)
        }
        found = read_tensors(write_tensors(tensors))
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(found[name], tensor)
            assert found[name].dtype == tensor.dtype
        with pytest.raises(TypeError, match="cannot hold"):
            write_tensors({"x": np.array([object()])})

    def test_texts_cross_as_texts(self) -> None:
        texts, frame = as_frame({"a": as_bytes(["ja", ""]), "b": np.ones(2), "c": np.array(["x"])})
        assert texts == ["a", "c"]
        found = of_frame(texts, frame)
        assert found["a"].tolist() == [b"ja", b""]
        assert found["c"].tolist() == [b"x"]


class _Counting:
    """Answers at once, and fails from some call on."""

    def __init__(self, fails_after: int = 1 << 30) -> None:
        self.fails_after, self.calls = fails_after, 0
        self.rows: set[int] = set()
        self.threads: set[int] = set()

    def run(self, tensors: Any) -> dict[str, Any]:
        self.calls += 1
        self.rows.add(len(tensors["x"]))
        self.threads.add(threading.get_ident())
        if self.calls > self.fails_after:
            raise RuntimeError("it fails")
        return {"y": tensors["x"]}


class TestTiming:
    def test_batches_and_callers_are_as_asked_for(self) -> None:
        engine: Any = _Counting()
        use = Use(batch=8, callers=3, seconds=0.01)
        found = timings(engine, {"x": np.zeros((20, 2))}, use)
        assert engine.rows == {8}
        assert len(engine.threads) >= 2
        assert found["latency_ms_p50"].n == found["rows_per_s"].n
        assert (found["latency_ms_p50"].n or 0) % (3 * REPEATS) == 0

    def test_a_batch_larger_than_the_samples_repeats_them(self) -> None:
        engine: Any = _Counting()
        timings(engine, {"x": np.zeros((3, 2))}, Use(batch=10, seconds=0.001))
        assert engine.rows == {10}

    def test_one_row_is_also_measured_in_large_batches(self) -> None:
        engine: Any = _Counting()
        timings(engine, {"x": np.zeros((3, 2))}, Use(seconds=0.001))
        assert engine.rows == {1, BATCH_ROWS}

    def test_what_goes_wrong_in_another_thread_is_not_lost(self) -> None:
        engine: Any = _Counting(fails_after=40)
        with pytest.raises(RuntimeError, match="it fails"):
            timings(engine, {"x": np.zeros((3, 2))}, Use(callers=2, seconds=0.05))


def worked(*messages: bytes) -> list[Message]:
    """Do what a child does, in this process."""
    (source, into), (out, sink) = os.pipe(), os.pipe()
    os.write(into, b"".join(messages))
    os.close(into)
    work(source, sink)
    os.close(sink)
    with os.fdopen(out, "rb") as answers:
        found = list(Incoming().feed(answers.read()))
    os.close(source)
    return found


class TestWork:
    opening: Any = {"do": "open", "engine": "onnxruntime", "settings": {"precision": "float32"}}

    def test_it_opens_measures_and_answers(self) -> None:
        texts, samples = as_frame(small_batch(20))
        how = {"texts": texts, "batch": 1, "callers": 1, "seconds": 0.001, "rows": 8}
        opened, measured, memory, answered = worked(
            pack(self.opening, small_graph()),
            pack({"do": "measure", **how}, samples),
            pack({"do": "memory", **how}, samples),
            pack({"do": "run", **how}, samples),
        )
        assert opened.header == {"opened": True}
        assert measured.header["measures"]["cpu_ms"]["value"] > 0
        assert memory.header["measures"]["memory_mib"]["unit"] == "MiB"
        assert len(of_frame(answered.header["texts"], answered.frames[0])["score"]) == 20

    def test_what_goes_wrong_is_an_answer_and_the_next_one_is_given(self) -> None:
        texts, samples = as_frame({"x": np.zeros((2, 99), dtype=np.float32)})
        bad, opened, refused, unknown = worked(
            pack(self.opening, b"no graph"),
            pack(self.opening, small_graph()),
            pack({"do": "run", "texts": texts, "rows": 0}, samples),
            pack({"do": "dance"}, b""),
        )
        assert bad.header["problem"]["code"] == "G608"
        assert opened.header == {"opened": True}
        assert refused.header["problem"]["code"] == "G602"
        assert unknown.header["refused"] == "crashed"

    def test_so_many_rows_are_computed_at_once_as_a_server_would(self) -> None:
        assert _most({"image": np.zeros((1, 2, 2, 3))}) == SAMPLE_IMAGES
        assert _most({"x": np.zeros((1, 2))}) == SAMPLE_ROWS
        assert _most({"m": as_bytes(["a"])}) == SAMPLE_TEXTS


class TestWords:
    def test_an_error_becomes_an_answer(self) -> None:
        problem = Problem("G601", "No.", why="x", tries=["y"])
        assert refusal(problem)["problem"]["code"] == "G601"
        assert refusal(MemoryError()) == {"refused": "memory", "why": "MemoryError: "}
        assert refusal(ValueError("a\nb"))["why"] == "ValueError: a"
        assert refusal(ValueError("a"))["refused"] == "crashed"

    def test_memory_is_read_in_mib_and_of_a_process_that_is_gone_there_is_none(self) -> None:
        assert memory_mib(os.getpid()) == pytest.approx(status_mib("VmRSS"), rel=0.2)
        assert memory_mib(2**22 + 1) == 0
        assert available_mib() > 10
