"""The OpenAPI document, the page for a person, curl, and bodies that were made smaller."""

import gzip
import io
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from genba.serve.http import compression
from genba.serve.http.openapi import document, path_of
from genba.serve.http.openapi_schemas import OPERATIONS
from genba.serve.http.responses import Refusal
from genba.serve.http.routes import ROUTES
from genba.serve.oip.answers import Answer
from genba.testing.serving import RunningServer
from tests.unit.triton_clients import factory, photographs

BODY = json.dumps(
    {"inputs": [{"name": "window", "datatype": "FP32", "shape": [1, 3, 4], "data": [1.5] * 12}]}
).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with factory(tmp_path_factory.mktemp("openapi")) as (started, _):
        yield started


def get(server: RunningServer, path: str, body: bytes | None = None, **fields: str) -> Any:
    asked = urllib.request.Request(
        server.url + path, body, {name.replace("_", "-"): value for name, value in fields.items()}
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.status, error.headers, error.read()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inside in value.values():
            yield from references(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from references(inside)


# The document.


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    """A new address needs a line in `openapi_schemas.OPERATIONS`."""
    routed = {(method, "/".join(route.pattern)) for route in ROUTES for method in route.methods}
    assert routed == set(OPERATIONS)
    paths = document(ROUTES, {})["paths"]
    assert {path_of(pattern.split("/")) for _, pattern in routed} == set(paths)
    for route in ROUTES:
        for method in route.methods:
            operation = paths[path_of(route.pattern)][method.lower()]
            assert operation["x-genba-scope"] == route.scope
            placed = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"]
            assert placed == re.findall(r"{(\w+)}", path_of(route.pattern))


def test_operations_have_names_of_their_own_and_references_lead_somewhere(
    server: RunningServer,
) -> None:
    status, headers, body = get(server, "/openapi.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    told = json.loads(body)
    assert told["openapi"].startswith("3.1")
    names = [one["operationId"] for path in told["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names)
    for reference in references(told):
        place = told
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_document_has_the_tensors_of_every_line(server: RunningServer) -> None:
    told = json.loads(get(server, "/openapi.json")[2])
    pump = told["paths"]["/v2/models/pump/infer"]["post"]
    schema = pump["requestBody"]["content"]["application/json"]["schema"]
    window, entity = schema["properties"]["inputs"]["items"]["anyOf"]
    assert window["properties"]["name"] == {"const": "window"}
    assert window["properties"]["shape"]["prefixItems"][1:] == [{"const": 3}, {"const": 4}]
    assert entity["properties"]["datatype"] == {"enum": ["BYTES", "INT64"]}
    example = pump["requestBody"]["content"]["application/json"]["examples"]["one row"]["value"]
    answer = get(server, "/v2/models/pump/infer", json.dumps(example).encode())
    assert answer[0] == 200
    line, package = told["paths"]["/v2/models/{line}/versions/{package}"]["get"]["parameters"]
    assert line["schema"]["enum"] == ["pump", "shop", "spare"]
    assert json.loads(answer[2])["model_version"] in package["schema"]["examples"]
    shop = told["paths"]["/v2/models/shop/infer"]["post"]
    assert "image/jpeg" in shop["requestBody"]["content"]
    assert {one["name"] for one in shop["parameters"]} == {"outputs", "entity", "time", "id", "bar"}


# The page.


def test_the_page_is_whole_and_may_speak_to_nobody_else(server: RunningServer) -> None:
    status, headers, body = get(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    page = body.decode()
    assert not re.findall(r"""(?:src|href)=["'](?!/|data:)""", page)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(r"""\sstyle=|\son\w+=["']|innerHTML|eval\(""", page)


# Bodies that were made smaller.


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_packed_requests(server: RunningServer, encoding: str, pack: Any) -> None:
    plain = get(server, "/v2/models/pump/infer", BODY)
    packed = get(server, "/v2/models/pump/infer", pack(BODY), Content_Encoding=encoding)
    assert packed[0] == plain[0] == 200
    scores = [json.loads(answer[2])["outputs"] for answer in (plain, packed)]
    assert scores[0] == scores[1]
    large = BODY[:-1] + b" " * 1_000_000 + b"}"
    assert get(server, "/v2/models/pump/infer", pack(large), Content_Encoding=encoding)[0] == 200
    index = get(server, "/v2/repository/index", pack(b'{"ready": true}'), Content_Encoding=encoding)
    assert len(json.loads(index[2])) == 3
    identity = get(server, "/v2/models/pump/infer", BODY, Content_Encoding="identity")
    assert identity[0] == 200


def test_packed_requests_that_are_refused(server: RunningServer) -> None:
    def refused(body: bytes, encoding: str = "gzip") -> tuple[int, str]:
        status, _, said = get(server, "/v2/models/pump/infer", body, Content_Encoding=encoding)
        return status, json.loads(said)["code"]

    packed = gzip.compress(BODY)
    assert refused(BODY) == (400, "G748")
    assert refused(packed[:-9]) == (400, "G748")
    assert refused(packed + b"more") == (400, "G748")
    assert refused(packed, "br") == (415, "G748")
    assert refused(packed, "gzip, gzip") == (415, "G748")
    assert refused(gzip.compress(bytes(30 << 20))) == (413, "G708")
    assert refused(gzip.compress(b"[" * 2_000_000)) == (400, "G704")
    assert get(server, "/v2/models/pump/infer", BODY)[0] == 200


def test_unpacking_stops_at_the_bound() -> None:
    with pytest.raises(Refusal) as caught:
        compression.unpack(zlib.compress(bytes(10_000)), 9_999)
    assert caught.value.status == 413
    assert len(compression.unpack(zlib.compress(bytes(10_000)), 10_001)) == 10_000


@pytest.mark.parametrize(
    ("accepts", "encoding"),
    [
        (b"gzip", b"gzip"),
        (b"deflate, gzip;q=0.5", b"deflate"),
        (b"br, GZIP", b"gzip"),
        (b"gzip;q=0, deflate;q=0.000", None),
        (b"identity", None),
        (b"*", None),
    ],
)
def test_answers_are_packed_as_the_client_likes_it(accepts: bytes, encoding: bytes | None) -> None:
    answer = Answer((b"x" * 600, b"y" * 600), b"text/plain", b"A: b\r\n")
    made = compression.pack(answer, accepts)
    if encoding is None:
        assert made is answer
        return
    assert made.fields == b"A: b\r\nContent-Encoding: %b\r\nVary: Accept-Encoding\r\n" % encoding
    assert compression.unpack(made.body[0], 10_000) == b"x" * 600 + b"y" * 600
    small = Answer((b"x",), b"text/plain", b"")
    assert compression.pack(small, accepts) is small


# curl.


def curl(*arguments: str) -> bytes:
    assert (program := shutil.which("curl"))
    done = subprocess.run(
        [program, "-sS", "--max-time", "20", *arguments], capture_output=True, check=True
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(server: RunningServer, tmp_path: Path) -> None:
    infer = f"{server.url}/v2/models/pump/infer"
    told = json.loads(curl(infer, "-d", BODY.decode()))
    assert told["parameters"]["role"] == "stable"
    scores = told["outputs"][0]["data"]
    assert (
        json.loads(curl(infer, "--compressed", "-d", BODY.decode()))["outputs"][0]["data"] == scores
    )
    raw = tmp_path / "raw"
    raw.write_bytes(b"\0\0\xc0\x3f" * 12)
    answer = curl(infer, "-H", "Inference-Header-Content-Length: 0", "--data-binary", f"@{raw}")
    assert b'"binary_data_size"' in answer
    for suffix, kind in (("png", "image/png"), ("jpeg", "application/octet-stream")):
        file = tmp_path / f"part.{suffix}"
        Image.open(io.BytesIO(photographs(1, 300)[0])).save(file)
        sent = ("-H", f"Content-Type: {kind}", "--data-binary", f"@{file}", "--compressed")
        address = f"{server.url}/v2/models/shop/infer?outputs=score,map&bar=2&id=mine"
        told = json.loads(curl(address, *sent))
        assert [output["name"] for output in told["outputs"]] == ["score", "map"]
        assert told["id"] == "mine"
    packed = tmp_path / "body.gz"
    packed.write_bytes(gzip.compress(BODY))
    told = json.loads(curl(infer, "-H", "Content-Encoding: gzip", "--data-binary", f"@{packed}"))
    assert told["outputs"][0]["data"] == scores
    refused = curl("-o", "/dev/null", "-w", "%{http_code}", infer, "-d", "{}")
    assert refused == b"400"
