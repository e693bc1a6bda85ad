"""Images through a real server: files, base64, pixels, bad ones, and what is kept of them."""

import base64
import http.client
import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.images import decode, encode_png
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.serve.oip import images
from genba.store.captures import find_prediction, read_capture
from genba.store.home import Store
from genba.testing.serving import IMAGE_SIZE, image_package, place, serve_here, until

LIMITS = Limits(poll_s=0.01, capture_s=0.05, sweep_s=0.02)
PATH = "/v2/models/parts/infer"
PNG = {"Content-Type": "image/png"}


def picture(seed: int = 0, side: int = IMAGE_SIZE) -> Array:
    """Return noise that is mostly red."""
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 200, (side, side, 3))
    pixels[..., 0] += 50
    return pixels.astype(np.uint8)


def jpeg(pixels: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """Return a small PNG that says it is very large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1_000)))


def ask(
    client: Client, body: bytes, fields: dict[str, str], path: str = PATH
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=20)
    connection.request("POST", path, body, fields)
    response = connection.getresponse()
    data = json.loads(response.read())
    connection.close()
    return response.status, data


def values(told: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in told["outputs"]}


def serving(script: Callable[[Client, Store], None], home: Path, limits: Limits = LIMITS) -> Store:
    store = Store.open(home)
    place(store, "parts", "deploy", image_package(store, "parts"))
    serve_here(home, lambda client: script(client, store), limits=limits)
    return store


def captured(store: Store) -> dict[int, dict[str, Any]]:
    return {
        row["n"]: row
        for record in store.ledger.find("capture")
        for row in read_capture(store, record).to_pylist()
        if row["role"] != "shadow"
    }


def test_an_image_file_is_a_request(home: Path) -> None:
    file = encode_png(picture())
    brightness = float(picture().mean()) / 255

    def script(client: Client, _: Store) -> None:
        for fields in (
            PNG,
            {"Content-Type": "IMAGE/JPEG; charset=none"},
            {"Content-Type": "application/octet-stream"},
            {"Content-Type": "application/x-www-form-urlencoded"},  # curl, when it is told nothing
            {"Inference-Header-Content-Length": "0"},
            {},
        ):
            status, told = ask(client, file, fields)
            assert status == 200, told
            found = values(told)
            assert list(found) == ["score", "alarm", "class", "probability"]
            assert found["score"] == pytest.approx([brightness / 0.5], rel=1e-5)
            assert found["class"] == [0]
            assert told["parameters"]["class_name"] == "red"
            assert told["parameters"]["role"] == "stable"
        assert values(ask(client, jpeg(picture(side=200)), {})[1])["class"] == [0]
        status, told = ask(client, encode_png(np.full((9, 9), 90, np.uint8)), PNG)
        assert values(told)["class"] == [-1]
        assert "class_name" not in told["parameters"]

    store = serving(script, home)
    first = captured(store)[0]
    assert first["image"] == file
    assert first["bar"] == 0.5
    assert {"map", "mask"}.isdisjoint(first)
    assert len(first["look"]) == 3


def test_the_address_says_the_rest(home: Path) -> None:
    file = encode_png(picture())

    def script(client: Client, _: Store) -> None:
        path = f"{PATH}?outputs=score,map&entity=camera%201&time=1700000000000&bar=0.25&id=x"
        status, told = ask(client, file, PNG, path)
        assert (status, told["id"]) == (200, "x")
        assert [(o["name"], o["shape"]) for o in told["outputs"]] == [
            ("score", [1]),
            ("map", [1, IMAGE_SIZE, IMAGE_SIZE]),
        ]
        assert values(told)["score"][0] == pytest.approx(float(picture().mean()) / 255 / 0.25)
        for query, what in [
            ("output=score", "did you mean outputs?"),
            ("zzzz=1", "Known: outputs, entity, time, id, bar."),
            ("outputs=scor", "did you mean score?"),
            ("time=now", "'time' of the address must be a number, not 'now'"),
            ("bar=nan", "'bar' of the address must be a number"),
            ("time=-5", "milliseconds since 1970"),
        ]:
            status, told = ask(client, file, PNG, f"{PATH}?{query}")
            assert (status, told["code"]) == (400, "G704")
            assert what in told["error"]

    row = captured(serving(script, home))[0]
    assert (row["entity"], row["time"], row["bar"]) == ("camera 1", 1_700_000_000_000, 0.25)


def test_files_base64_and_pixels_are_answered_alike(home: Path) -> None:
    pixels = np.stack([picture(seed) for seed in range(3)])
    files = [encode_png(one) for one in pixels]

    def script(client: Client, _: Store) -> None:
        by_file = client.infer("parts", {"image": files}, entities=["a", "b", "a"], times=[1, 2, 3])
        assert list(by_file.outputs) == [
            "score", "alarm", "class", "probability", "look", "map", "mask",
        ]  # fmt: skip
        by_pixel = client.infer("parts", {"image": pixels}, outputs=["map", "score"])
        assert list(by_pixel.outputs) == ["map", "score"]
        listed = {"name": "image", "shape": [3]}
        texts = [base64.b64encode(file).decode() for file in files]
        body = {"inputs": [{**listed, "datatype": "BYTES", "data": texts}]}
        status, told = ask(client, json.dumps(body).encode(), {})
        assert status == 200
        assert "class_name" not in told["parameters"]  # of three rows there is no one class
        for name, array in by_pixel.outputs.items():
            np.testing.assert_array_equal(array, by_file.outputs[name])
            np.testing.assert_allclose(array.ravel(), values(told)[name], rtol=1e-6)
        expected = pixels.mean(axis=3) / 255 / 0.5
        np.testing.assert_allclose(by_file.outputs["map"], expected, rtol=1e-5)

    store = serving(script, home)
    rows = captured(store)
    assert [rows[n]["image"] for n in range(3)] == files
    assert [rows[n]["entity"] for n in range(3)] == ["a", "b", "a"]
    assert [rows[n]["time"] for n in range(3)] == [1, 2, 3]
    for n in range(3, 6):  # pixels are kept as PNG, which loses nothing
        np.testing.assert_array_equal(decode(rows[n]["image"], IMAGE_SIZE), pixels[n - 3])
    assert [rows[n]["image"] for n in range(6, 9)] == files
    record = store.ledger.find("capture")[0]
    assert "image" not in read_capture(store, record, images=False).column_names


def test_a_bad_image_refuses_its_own_request_only(home: Path) -> None:
    good = encode_png(picture())
    bad = {
        b"no image at all": "G230",
        good[: len(good) // 2]: "G231",
        b"GIF89a" + bytes(50): "G232",
        bomb(): "G233",
        encode_png(picture(side=4)): "G234",
        b"": "G230",
    }

    def script(client: Client, _: Store) -> None:
        for data, code in bad.items():
            status, told = ask(client, data, PNG)
            assert (status, told["code"]) == (400, code)
            assert told["error"].endswith(".")
        with pytest.raises(Problem) as caught:
            client.infer("parts", {"image": [good, b"oops", good]})
        assert caught.value.code == "G230"
        assert caught.value.what.startswith("Image 2 of 3: ")
        listed = {"name": "image", "shape": [2], "datatype": "BYTES"}
        texts = [base64.b64encode(good).decode(), "%%%"]
        body = json.dumps({"inputs": [{**listed, "data": texts}]}).encode()
        status, told = ask(client, body, {})
        assert (status, told["code"]) == (400, "G730")
        assert "Image 2" in told["error"]
        assert client.infer("parts", {"image": [good]}).outputs["class"].tolist() == [0]
        counts = next(iter(client.line("parts")["versions"].values()))
        assert (counts["predictions"], counts["errors"]) == (1, 0)  # the package is not to blame
        assert counts["inline"] is False

    store = serving(script, home)
    (found,) = [r.body["packages"] for r in store.ledger.find("capture")]
    assert [(p["n"], p["errors"]) for p in found.values()] == [(1, 0)]


def test_pipelined_good_and_bad_images_are_answered_in_order(home: Path) -> None:
    file = encode_png(picture())
    bodies = [file, b"bad", jpeg(picture()), bomb(), file]
    request = (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d"
    )
    sent = b"".join(request % (PATH.encode(), len(b)) + b"\r\n\r\n" + b for b in bodies)

    def script(client: Client, _: Store) -> None:
        client.ready()
        assert client._socket is not None
        client._socket.sendall(sent)
        data = b""
        while len(re.findall(rb"HTTP/1\.1 \d", data)) < len(bodies):
            data += client._socket.recv(65_536)
        assert re.findall(rb"HTTP/1\.1 (\d+)", data) == [b"200", b"400", b"200", b"400", b"200"]
        client.close()

    serving(script, home)


def test_too_much_is_refused_before_it_is_decoded(home: Path) -> None:
    file = encode_png(picture())

    def script(client: Client, _: Store) -> None:
        for count, what in ((5, "5 rows; from 1 to 4"), (0, "0 rows")):
            with pytest.raises(Problem) as caught:
                client.infer("parts", {"image": np.array([file] * count, dtype=object)})
            assert what in caught.value.what
        with pytest.raises(Problem) as caught:
            client.infer("parts", {"image": np.zeros((1, 20, 20, 3), np.uint8)})
        assert "Send JPEG or PNG bytes instead" in caught.value.what
        assert "[-1, 16, 16, 3], not [1, 20, 20, 3]" in caught.value.what
        with pytest.raises(Problem) as caught:
            client.infer("parts", {"image": np.zeros((1, 16, 16, 3), np.float32)})
        assert "must be UINT8, not FP32" in caught.value.what
        status, told = ask(client, bytes(200_000), PNG)
        assert (status, told["code"]) == (413, "G708")
        assert "100000 bytes" in told["error"]

    serving(script, home, replace(LIMITS, request_images=4, body_bytes=100_000))


def test_the_queue_is_bounded_in_bytes_too(home: Path) -> None:
    file = encode_png(picture())

    def script(client: Client, _: Store) -> None:
        assert ask(client, file, PNG)[0] == 200
        status, told = ask(client, jpeg(picture(side=400)), PNG)
        assert (status, told["code"]) == (503, "G706")

    serving(script, home, replace(LIMITS, queue_bytes=2 * len(file)))


def test_more_images_than_a_batch_are_run_in_pieces(home: Path) -> None:
    pixels = np.stack([picture(seed) for seed in range(7)])

    def script(client: Client, _: Store) -> None:
        answer = client.infer("parts", {"image": pixels}, outputs=["score"])
        expected = pixels.reshape(7, -1).mean(axis=1) / 255 / 0.5
        np.testing.assert_allclose(answer.outputs["score"], expected, rtol=1e-5)

    serving(script, home, replace(LIMITS, batch_images=3))


def test_large_json_is_parsed_beside_the_event_loop(home: Path) -> None:
    file = encode_png(picture())

    def script(client: Client, store: Store) -> None:
        texts = [base64.b64encode(file).decode()] * 3
        listed = {"name": "image", "shape": [3], "datatype": "BYTES", "data": texts}
        status, told = ask(client, json.dumps({"inputs": [listed]}).encode(), {})
        assert status == 200
        assert values(told)["class"] == [0, 0, 0]
        wrong = json.dumps({"inputs": [{**listed, "shape": [2]}]}).encode()
        status, told = ask(client, wrong, {})
        assert (status, told["code"]) == (400, "G704")
        number = told_id(client)
        until(lambda: find_prediction(store, number) is not None)

    def told_id(client: Client) -> str:
        return client.infer("parts", {"image": [file]}).predictions[0]

    serving(script, home, replace(LIMITS, parse_bytes=1_000))


def test_a_decoder_that_breaks_does_not_stop_the_lane(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = encode_png(picture())

    def broken(data: bytes, size: int) -> Array:
        if data == file:
            raise ZeroDivisionError("nobody thought of this")
        return decode(data, size)

    monkeypatch.setattr(images, "decode", broken)

    def script(client: Client, _: Store) -> None:
        status, told = ask(client, file, PNG)
        assert (status, told["code"]) == (400, "G730")
        assert "nobody thought of this" in told["error"]
        assert ask(client, jpeg(picture()), PNG)[0] == 200

    serving(script, home)
