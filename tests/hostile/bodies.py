"""Bad bodies: what a request says that HTTP has nothing against. The same form as `corpus.py`."""

import gzip
import json
import struct
import zlib
from typing import Any, Final

from tests.hostile.corpus import Case
from tests.hostile.wire import post, window

_WRONG: Final = ["400 G704"]
_LENGTH: Final = "Inference-Header-Content-Length"
_DEEP: Final = 200_000
_IMAGE: Final = {"Content-Type": "image/png"}
_PARTS: Final = "/v2/models/parts/infer"
_FLOATS: Final = struct.pack("<12f", *range(12))


def _text(text: str | bytes) -> bytes:
    return post(text.encode() if isinstance(text, str) else text)


def _with(**changes: Any) -> bytes:
    return post({**window(), **changes})


def _binary(body: Any, data: bytes, length: Any = None, **fields: str) -> bytes:
    head = json.dumps(body).encode()
    size = len(head) if length is None else length
    return post(head + data, fields={_LENGTH: str(size), **fields})


def _declared(size: Any, shape: Any = (1, 3, 4), **changes: Any) -> dict[str, Any]:
    changed = window(shape, parameters={"binary_data_size": size}, **changes)
    del changed["inputs"][0]["data"]
    return changed


def _entity(values: Any, datatype: str = "BYTES") -> bytes:
    tensor = {"name": "entity", "datatype": datatype, "shape": [len(values)], "data": values}
    return post({"inputs": [*window()["inputs"], tensor]})


def _png(width: int, height: int) -> bytes:
    """A picture that promises more pixels than anybody has memory for, and holds none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    written = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


#: Requests for predictions in JSON.
JSON: Final[list[Case]] = [
    ("nothing", _text(""), _WRONG),
    ("not JSON", _text("hello"), _WRONG),
    ("half a JSON", _text('{"inputs": ['), _WRONG),
    ("JSON and more", _text(json.dumps(window()) + "}"), _WRONG),
    ("not UTF-8", _text(b'{"inputs": "\xff"}'), _WRONG),
    ("half a character", _text('{"id": "\\ud800", "inputs": []}'), _WRONG),
    ("a list", _text("[]"), _WRONG),
    ("null", _text("null"), _WRONG),
    ("a number", _text("1" * 5_000), _WRONG),
    ("a deep list", _text("[" * _DEEP), _WRONG),
    ("deep data", _text(json.dumps(window()).replace("0.5", "[" * 9_000, 1)), _WRONG),
    ("deep and closed", post(window(data=json.loads("[" * 400 + "]" * 400))), _WRONG),
    ("no inputs", post({}), _WRONG),
    ("empty inputs", post({"inputs": []}), _WRONG),
    ("inputs of null", post({"inputs": None}), _WRONG),
    ("too many inputs", post({"inputs": window()["inputs"] * 65}), _WRONG),
    ("an input twice", post({"inputs": window()["inputs"] * 2}), _WRONG),
    ("a key twice", _text('{"id": "a", "id": "b", ' + json.dumps(window())[1:]), ["200"]),
    ("a long id", _with(id="x" * 129), _WRONG),
    ("an id of null", _with(id=None), _WRONG),
    ("parameters of a list", _with(parameters=[]), _WRONG),
    ("an unknown output", _with(outputs=[{"name": "nothing"}]), _WRONG),
    ("too many outputs", _with(outputs=[{"name": "score"}] * 65), _WRONG),
    ("a long unknown name", post(window(name="x" * 1_000_000)), _WRONG),
    ("an unknown name", post(window(name="windows")), _WRONG),
    ("a name of NUL", post(window(name="\x00")), _WRONG),
    ("another type", post(window(datatype="FP64")), _WRONG),
    ("a type there is not", post(window(datatype="FP1024")), _WRONG),
    ("no shape", post(window(())), _WRONG),
    ("a shape of zero", post(window((0, 3, 4), [])), _WRONG),
    ("a negative size", post(window((-1, 3, 4))), _WRONG),
    ("a size of words", post(window(("a", 3, 4))), _WRONG),
    ("half a size", post(window((1.5, 3, 4))), _WRONG),
    ("a huge size", post(window((2**62, 3, 4))), _WRONG),
    ("a product that overflows", post(window((2**40, 2**40, 2**40))), _WRONG),
    ("a rank of nine", post(window((1,) * 9)), _WRONG),
    ("a rank of a million", post(window((1,) * 1_000_000)), _WRONG),
    ("another rank", post(window((12,))), _WRONG),
    ("another shape", post(window((1, 4, 3))), _WRONG),
    ("too many rows", post(window((5_000, 3, 4), [0] * 60_000)), _WRONG),
    ("more rows than data", post(window((4_096, 3, 4))), _WRONG),
    ("too little data", post(window(data=[0.5] * 11)), _WRONG),
    ("no data", post(window(data=[])), _WRONG),
    ("data of words", post(window(data=["a"] * 12)), _WRONG),
    ("data of objects", post(window(data=[{}] * 12)), _WRONG),
    (
        "data that is not UTF-8",
        post(json.dumps(window()).encode().replace(b"0.5", b'"\xa5"', 1)),
        _WRONG,
    ),
    (
        "an entity of half a character",
        _text(_entity(["x"]).partition(b"\r\n\r\n")[2].replace(b'"x"', b'"\\ud800"')),
        _WRONG,
    ),
    ("data of truth", post(window(data=[True] * 12)), _WRONG),
    ("data of null", post(window(data=[None] * 12)), ["200"]),
    ("ragged data", post(window(data=[[[0] * 4, [0] * 4, [0] * 3]])), _WRONG),
    ("NaN", _text(json.dumps(window(data=[float("nan")] * 12))), _WRONG),
    ("Infinity", _text(json.dumps(window(data=[float("inf")] * 12))), _WRONG),
    ("a number too large", _text(json.dumps(window()).replace("0.5", "1e999")), _WRONG),
    ("a number of many digits", _text(json.dumps(window()).replace("0.5", "1" * 5_000)), _WRONG),
    ("half a number", _text(json.dumps(window()).replace("0.5", "0.")), _WRONG),
    ("an entity of numbers", _entity([1], "FP32"), _WRONG),
    ("an entity nobody knows", _entity(["x" * 100_000]), ["200"]),
    ("an entity out of range", _entity([2**62], "INT64"), ["200"]),
    ("an entity beyond 64 bits", _entity([2**70], "INT64"), _WRONG),
    ("two entities for one row", _entity(["a", "b"]), _WRONG),
    ("size and data", post(window(parameters={"binary_data_size": 48})), _WRONG),
    ("a timeout of words", _with(parameters={"timeout": "soon"}), _WRONG),
    ("a negative timeout", _with(parameters={"timeout": -1}), _WRONG),
]

#: Requests with the binary extension.
BINARY: Final[list[Case]] = [
    ("a good one", _binary(_declared(48), _FLOATS), ["200"]),
    ("a raw body", post(_FLOATS, fields={_LENGTH: "0"}), ["200"]),
    ("a raw body cut off", post(_FLOATS[:-1], fields={_LENGTH: "0"}), _WRONG),
    ("a raw body of nothing", post(b"", fields={_LENGTH: "0"}), _WRONG),
    ("a length of words", _binary(_declared(48), _FLOATS, "many"), _WRONG),
    ("a negative length", _binary(_declared(48), _FLOATS, -1), _WRONG),
    ("a length beyond the body", _binary(_declared(48), _FLOATS, 10**6), _WRONG),
    ("a length of many digits", _binary(_declared(48), _FLOATS, "9" * 5_000), _WRONG),
    ("a length of other digits", _binary(_declared(48), _FLOATS, "\xb2"), _WRONG),
    ("a length within the JSON", _binary(_declared(48), _FLOATS, 5), _WRONG),
    ("a size too small", _binary(_declared(44), _FLOATS), _WRONG),
    ("a size too large", _binary(_declared(52), _FLOATS), _WRONG),
    ("a negative size", _binary(_declared(-48), _FLOATS), _WRONG),
    ("a huge size", _binary(_declared(2**62), _FLOATS), _WRONG),
    ("a size of words", _binary(_declared("48"), _FLOATS), _WRONG),
    ("bytes of nobody", _binary(_declared(48), _FLOATS + b"x"), _WRONG),
    ("no bytes", _binary(_declared(48), b""), _WRONG),
    ("a huge shape", _binary(_declared(48, (2**39, 3, 4)), _FLOATS), _WRONG),
    ("not a number", _binary(_declared(48), struct.pack("<12f", *[float("nan")] * 12)), ["200"]),
    ("names cut off", _binary(
        {"inputs": [*_declared(48)["inputs"], {"name": "entity", "datatype": "BYTES", "shape": [1],
                                               "parameters": {"binary_data_size": 6}}]},
        _FLOATS + struct.pack("<I", 2**32 - 1) + b"ab"), _WRONG),
    ("names that are not UTF-8", _binary(
        {"inputs": [*_declared(48)["inputs"], {"name": "entity", "datatype": "BYTES", "shape": [1],
                                               "parameters": {"binary_data_size": 5}}]},
        _FLOATS + struct.pack("<I", 1) + b"\xff"), _WRONG),
]  # fmt: skip

#: Bodies that were made smaller.
PACKED: Final[list[Case]] = [
    ("a good one", post(gzip.compress(json.dumps(window()).encode()),
                        fields={"Content-Encoding": "gzip"}), ["200"]),
    ("a bomb", post(gzip.compress(b"\0" * 100_000_000, 9),
                    fields={"Content-Encoding": "gzip"}), ["413 G708"]),
    ("a bomb in a bomb", post(gzip.compress(gzip.compress(b"\0" * 100_000_000, 9)),
                              fields={"Content-Encoding": "gzip, gzip"}), ["415 G748"]),
    ("not packed", post(window(), fields={"Content-Encoding": "gzip"}), ["400 G748"]),
    ("cut off", post(gzip.compress(json.dumps(window()).encode())[:-9],
                     fields={"Content-Encoding": "gzip"}), ["400 G748"]),
    ("and more", post(gzip.compress(json.dumps(window()).encode()) + b"more",
                      fields={"Content-Encoding": "gzip"}), ["400 G748"]),
    ("another way", post(window(), fields={"Content-Encoding": "br"}), ["415 G748"]),
]  # fmt: skip

#: Images, and what says it is one.
IMAGES: Final[list[Case]] = [
    ("nothing", post(b"", url=_PARTS, fields=_IMAGE), ["400 G230"]),
    ("no image", post(b"hello", url=_PARTS, fields=_IMAGE), ["400 G230"]),
    ("a bomb", post(_png(60_000, 60_000), url=_PARTS, fields=_IMAGE), ["400 G233"]),
    ("a wide bomb", post(_png(2**31 - 1, 1), url=_PARTS, fields=_IMAGE), ["400 G233"]),
    ("no pixels", post(_png(0, 0), url=_PARTS, fields=_IMAGE), ["400 G230"]),
    ("cut off", post(_png(9, 9)[:40], url=_PARTS, fields=_IMAGE), ["400 G230"]),
    ("not enough pixels", post(_png(99, 99), url=_PARTS, fields=_IMAGE), ["400 G231"]),
    ("a JPEG that is none", post(b"\xff\xd8\xff" + b"\0" * 99, url=_PARTS), ["400 G230"]),
    ("a time beyond time", post(_png(9, 9), url=_PARTS + "?time=1e300", fields=_IMAGE), _WRONG),
    ("a time of words", post(_png(9, 9), url=_PARTS + "?time=now", fields=_IMAGE), _WRONG),
    ("a bar of words", post(_png(9, 9), url=_PARTS + "?bar=nan", fields=_IMAGE), _WRONG),
    ("a bar too high", post(_png(9, 9), url=_PARTS + "?bar=1e300", fields=_IMAGE), _WRONG),
    ("an unknown field", post(_png(9, 9), url=_PARTS + "?a=b", fields=_IMAGE), _WRONG),
    ("a long field", post(_png(9, 9), url=_PARTS + f"?{'a' * 9_000}=b", fields=_IMAGE), _WRONG),
    ("not base64", post({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1],
                                     "data": ["%%%"]}]}, url=_PARTS), ["400 G730"]),
    ("base64 that is not UTF-8", post(b'{"inputs": [{"name": "image", "datatype": "BYTES", '
                                      b'"shape": [1], "data": ["\xa5"]}]}', url=_PARTS), _WRONG),
    ("pixels of another size", post({"inputs": [{"name": "image", "datatype": "UINT8",
                                                 "shape": [1, 1, 1, 3], "data": [0, 0, 0]}]},
                                    url=_PARTS), _WRONG),
    ("a pixel beyond its byte", post({"inputs": [{"name": "image", "datatype": "UINT8",
                                                  "shape": [1, 16, 16, 3],
                                                  "data": [256] * 768}]}, url=_PARTS), _WRONG),
]  # fmt: skip

_FEEDBACK: Final = "/genba/v1/lines/pump/feedback"

#: Other addresses.
ADDRESSES: Final[list[Case]] = [
    ("no such line", post(window(), url="/v2/models/" + "x" * 9_000 + "/infer"), ["404 G703"]),
    ("no such version", post(window(), url="/v2/models/pump/versions/1/infer"), ["404 G703"]),
    ("feedback of words", post(b"hello", url=_FEEDBACK), _WRONG),
    ("feedback of nothing", post([], url=_FEEDBACK), _WRONG),
    ("feedback without an end", post(b"[" * _DEEP, url=_FEEDBACK), _WRONG),
    ("feedback without a home", post([{"prediction": "x"}], url=_FEEDBACK), ["400 G810"]),
    ("a mask of numbers", post([{"mask": 5}], url=_FEEDBACK), ["400 G731"]),
    ("a large mask", post([{"mask": "A" * 5_000_000}], url=_FEEDBACK), ["400 G731"]),
    ("loading what is not there", post({}, url="/v2/repository/models/nothing/load"), ["404 G703"]),
    ("an index of words", post(b"hello", url="/v2/repository/index"), _WRONG),
]  # fmt: skip

ALL: Final[list[tuple[str, list[Case]]]] = [
    ("json", JSON),
    ("binary", BINARY),
    ("packed", PACKED),
    ("images", IMAGES),
    ("addresses", ADDRESSES),
]
