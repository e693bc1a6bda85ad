"""Heads of requests: what is kept says what the parser said, and nothing odd is kept."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.serve.http.plans import Plans, add_field, trace_of
from genba.serve.http.responses import Refusal

HOST = b"\r\nHost: localhost\r\n\r\n"
PLAIN = b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n"


def with_field(name: bytes, value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n%b: %b%b" % (name, value, HOST)


def test_a_plain_head_is_parsed_once() -> None:
    plans = Plans()
    plan = plans.get(PLAIN)
    assert plan is not None
    assert (plan.method, plan.target, plan.length) == (b"POST", b"/v2/models/pump/infer", 12)
    assert plan.headers == {b"host": b"a", b"content-length": b"12"}
    assert (plan.keep_alive, plan.chunks, plan.urgent, plan.trace) == (True, True, True, "")
    assert plans.get(PLAIN) is plan
    plans.clear()
    assert plans.get(PLAIN) is not plan


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1" + HOST,
        with_field(b"Transfer-Encoding", b"chunked"),
        with_field(b"Transfer-Encoding", b"gzip"),
        with_field(b"Expect", b"100-continue"),
        with_field(b"Upgrade", b"h2c"),
        with_field(b"Content-Length", b"1\r\nContent-Length: 1"),
        with_field(b"Content-Length", b"1\r\nTransfer-Encoding: chunked"),
        with_field(b"Content-Length", b"+1"),
        with_field(b"Content-Length", b"1, 1"),
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(head: bytes) -> None:
    plans = Plans()
    assert plans.get(head) is None
    assert plans.get(head) is None  # nothing was kept


@pytest.mark.parametrize(
    "name",
    [b"Host", b"Authorization", b"Content-Type", b"Inference-Header-Content-Length", b"Origin"],
)
def test_a_field_that_contradicts_itself_is_not_kept(name: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n%b: 1\r\n%b: 2\r\n\r\n" % (name, name.lower())
    assert Plans().get(head) is None  # the parser refuses it
    with pytest.raises(Refusal) as caught:
        add_field({name.lower(): b"1"}, name, b"2")
    assert (caught.value.status, caught.value.code) == (400, "G708")


def test_connections_that_end_and_old_clients() -> None:
    ends = Plans().get(with_field(b"Connection", b"close"))
    old = Plans().get(b"GET / HTTP/1.0" + HOST)
    assert ends is not None
    assert old is not None
    assert (ends.keep_alive, ends.chunks) == (False, True)
    assert (old.keep_alive, old.chunks) == (False, False)


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"250", 0.25), (b"0.5", 0.0005), (b"0", math.nan), (b"soon", math.nan)]
)
def test_the_deadline_of_a_request(value: bytes, seconds: float) -> None:
    plan = Plans().get(with_field(b"X-Genba-Deadline-Ms", value))
    assert plan is not None
    assert plan.deadline_s == pytest.approx(seconds, nan_ok=True)


def test_the_priority_of_a_request() -> None:
    batch = Plans().get(with_field(b"X-Genba-Priority", b"Batch"))
    assert batch is not None
    assert not batch.urgent


@pytest.mark.parametrize(
    "value",
    [b"", b"00", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b"00-" + b"A" * 32 + b"-1-1"],
)
def test_what_is_no_trace(value: bytes) -> None:
    assert trace_of(value) == ""


def test_the_oldest_plan_goes_first() -> None:
    plans = Plans(entries=2)
    heads = [b"GET /%d HTTP/1.1%b" % (n, HOST) for n in range(3)]
    first, second = plans.get(heads[0]), plans.get(heads[1])
    plans.get(heads[2])
    assert plans.get(heads[1]) is second
    assert plans.get(heads[0]) is not first


def test_a_long_head_is_not_kept() -> None:
    plans = Plans(head_bytes=100)
    long = with_field(b"X-Long", b"x" * 100)
    assert plans.get(long) is not plans.get(long)


@given(st.binary(max_size=200))
def test_whatever_is_kept_ends_where_the_parser_says(noise: bytes) -> None:
    plan = Plans().get(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + noise + b"\r\n\r\n")
    if plan is not None and b"\r\n" not in noise:
        assert plan.headers == {b"host": b"a", b"x": noise.strip(b" \t")}
