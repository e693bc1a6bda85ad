"""Default deny: every address with every method and every kind of caller, over HTTP and gRPC."""

import http.client
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import grpc
import pytest

from genba.core.keys import SCOPES, Key, token_digest
from genba.serve.access.callers import ANYONE, DESCRIBE, Access, Rules
from genba.serve.client import Client
from genba.serve.grpc.methods import METHODS
from genba.serve.http import routes
from genba.serve.http.plans import Plans
from genba.serve.http.responses import Refusal
from genba.serve.http.routes import ROUTES, App, Route
from genba.serve.limits import Limits
from genba.serve.watch.metrics import Metrics
from genba.store.home import Store
from genba.store.keys import Grant, add_key
from genba.testing.serving import serve_here

METHODS_OF_HTTP = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE")
NOW_S = 1_000.0
PAGE = "https://board.example"


def token_of(id: str) -> str:
    return f"gk_{id}_{'s' * 43}"


def known_keys() -> dict[str, Key]:
    """Return a key for each scope, one for another line, one that ended, one that was revoked."""

    def one(id: str, *scopes: str, **more: Any) -> Key:
        digest = token_digest(token_of(id).encode())
        return Key(id=id, name=id, digest=digest, scopes=frozenset(scopes), **more)

    made = [one(f"{n}{'a' * 7}", scope) for n, scope in enumerate(SCOPES)]
    made.append(one("eeeeeeee", *SCOPES, expires_ms=int(NOW_S * 1_000)))
    made.append(one("rrrrrrrr", *SCOPES, revoked_ms=1))
    scopes = ("infer", "read", "feedback", "deploy", "device")
    made.append(one("fffffff0", *scopes, lines=frozenset({"fan"})))
    return {key.id: key for key in made}


KEYS = known_keys()
#: What a key of one scope may ask.
ALLOWED = {
    scope: {scope, DESCRIBE, ANYONE} if scope != "admin" else {*SCOPES, DESCRIBE, ANYONE}
    for scope in SCOPES
}
NOBODY = {ANYONE}


class Walker:
    """Asks a server that has keys, by the head of a request alone."""

    def __init__(self, access: Access) -> None:
        self.app = App(Limits(), access, Metrics(1.0), {}, lambda *_: None)
        self.plans = Plans()

    def status(self, method: str, path: str, headers: Mapping[str, str]) -> int:
        """Return 200 when the request would be let on, else the status of its refusal."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        plan = self.plans.get(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode())
        assert plan is not None
        try:
            release = self.app.admit(plan, "10.0.0.1")
        except Refusal as refusal:
            return refusal.status
        if release is not None:
            release()
        return 200


@pytest.fixture
def walker() -> Iterator[Walker]:
    access = Access(
        rules=Rules(loopback=False, origins=frozenset({PAGE.encode()})), today=lambda: NOW_S
    )
    access.update(KEYS)
    made = Walker(access)
    yield made
    made.app.close()


def headers(id: str = "", **more: str) -> dict[str, str]:
    sent = {"Host": "factory.example", **more}
    return {**sent, "Authorization": f"Bearer {token_of(id)}"} if id else sent


def path_of(route: Route) -> str:
    return "/" + "/".join("pump" if part == "*" else part for part in route.pattern)


def test_every_route_has_a_scope() -> None:
    known = {*SCOPES, DESCRIBE, ANYONE}
    assert {route.scope for route in ROUTES} <= known
    open_to_all = {path_of(route) for route in ROUTES if route.scope == ANYONE}
    assert open_to_all == {"/v2/health/live", "/", "/talk"}, "pages without data"
    assert Route("x", "x").scope is None, "who forgets it has made an address for nobody"


def test_every_route_and_method_with_every_caller(walker: Walker) -> None:
    callers: dict[str, tuple[dict[str, str], set[str]]] = {
        "no key": (headers(), NOBODY),
        **{key.name: (headers(key.id), ALLOWED[next(iter(key.scopes))])
           for key in KEYS.values() if len(key.scopes) == 1},
    }  # fmt: skip
    asked: Counter[int] = Counter()
    for route in ROUTES:
        for method in METHODS_OF_HTTP:
            for name, (sent, allowed) in callers.items():
                status = walker.status(method, path_of(route), sent)
                asked[status] += 1
                what = f"{method} {path_of(route)} with {name}"
                if route.scope not in allowed:
                    assert status == (401 if name == "no key" else 403), what
                else:
                    assert status == (200 if method.encode() in route._handlers else 405), what
    assert asked[200] > 50
    assert asked[401] > 150
    assert asked[403] > 300
    assert set(asked) == {200, 401, 403, 405}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (headers("bbbbbbbb"), 401),
        (headers("eeeeeeee"), 401),
        (headers("rrrrrrrr"), 401),
        ({**headers(), "Authorization": "Bearer x"}, 401),
        ({**headers(), "Authorization": f"Basic {token_of('0aaaaaaa')}"}, 401),
        (headers("4aaaaaaa", Origin="https://evil.example"), 403),
        (headers("4aaaaaaa", Origin="null"), 403),
        ({**headers("4aaaaaaa"), "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Authorization": f"Bearer {token_of('4aaaaaaa')}"}, 400),
    ],
)
def test_who_is_refused_is_refused_everywhere(
    sent: dict[str, str], status: int, walker: Walker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walker.app._access, "count_wrong", lambda _peer: None)
    for path in (*map(path_of, ROUTES), "/nothing", "/v2/../metrics"):
        for method in METHODS_OF_HTTP:
            assert walker.status(method, path, sent) == status, f"{method} {path}"


def test_what_is_not_there_is_refused_first(walker: Walker) -> None:
    for path in ("/nothing", "/v3", "/v2/models", "/admin", "/.env", "/v2/models/pump/infer/x"):
        for method in METHODS_OF_HTTP:
            assert walker.status(method, path, headers()) == 401, "nobody learns what there is"
            assert walker.status(method, path, headers("4aaaaaaa")) == 404


def test_a_key_for_another_line(walker: Walker) -> None:
    sent = headers("fffffff0")
    for route in ROUTES:
        for method in (m.decode() for m in route._handlers):
            own = walker.status(method, path_of(route).replace("pump", "fan"), sent)
            other = walker.status(method, path_of(route), sent)
            about_line = "*" in route.pattern and not route.names_line
            general = route.scope in (DESCRIBE, ANYONE) or route.names_line  # its handler asks
            assert (own, other) == (
                (200, 403) if about_line else (200,) * 2 if general else (403,) * 2
            )


def test_on_loopback_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine may do everything, a page in its browser nothing that changes what answers."""
    walker = Walker(Access())
    for route in ROUTES:
        for method in (m.decode() for m in route._handlers):
            path = path_of(route)
            assert walker.status(method, path, {"Host": "localhost:8080"}) == 200
            assert walker.status(method, path, {"Host": "factory.example"}) == 403
            for page, own in (
                ({"Origin": "http://localhost:8080"}, True),
                ({"Sec-Fetch-Site": "same-origin"}, True),
                ({"Origin": "http://evil.example"}, False),
                ({"Sec-Fetch-Site": "cross-site"}, False),
            ):
                allowed = own and route.scope not in ("deploy", "admin")
                status = walker.status(method, path, {"Host": "localhost:8080", **page})
                assert status == (200 if allowed else 403)
    walker.app.close()


def test_a_browser_is_told_what_a_page_may_send(walker: Walker) -> None:
    asked = {**headers(Origin=PAGE), "Access-Control-Request-Method": "POST"}
    assert walker.status("OPTIONS", "/v2/models/pump/infer", asked) == 200
    assert walker.status("POST", "/v2/models/pump/infer", asked) == 401
    assert walker.status("POST", "/v2/models/pump/infer", headers("0aaaaaaa", Origin=PAGE)) == 200
    other = {**asked, "Origin": "https://evil.example"}
    assert walker.status("OPTIONS", "/v2/models/pump/infer", other) == 403


def test_keys_that_change_are_seen_by_heads_that_were_kept(walker: Walker) -> None:
    sent = headers("0aaaaaaa")
    path = "/v2/models/pump/infer"
    assert walker.status("POST", path, sent) == 200
    revoked = replace(KEYS["0aaaaaaa"], revoked_ms=2)
    walker.app._access.update({**KEYS, "0aaaaaaa": revoked})
    assert walker.status("POST", path, sent) == 401
    walker.app._access.update(KEYS)
    assert walker.status("POST", path, sent) == 200


def test_a_guesser_is_told_to_wait(walker: Walker) -> None:
    statuses = [walker.status("GET", f"/v2?{n}", headers("bbbbbbbb")) for n in range(30)]
    assert statuses == [401] * 20 + [429] * 10
    assert walker.status("GET", "/v2", headers("0aaaaaaa")) == 200


def test_every_method_of_grpc_with_every_caller(home: Path) -> None:
    with Store.open(home) as store:
        scoped = {
            scope: add_key(store.ledger, scope, Grant(scopes=(scope,)), by="me", now_ms=0)[1]
            for scope in SCOPES
        }
        _, ended = add_key(
            store.ledger, "ended", Grant(scopes=("admin",), days=1), by="me", now_ms=0
        )
    scopes = {**{name: method.scope for name, method in METHODS.items()}, "ModelInfer": "infer"}

    def ask(channel: grpc.Channel, name: str, token: str) -> grpc.StatusCode:
        metadata = [("authorization", f"Bearer {token}")] if token else []
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
        try:
            call(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK

    def script(_: Client) -> None:
        nothing, denied = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name, scope in scopes.items():
                if scope != ANYONE:
                    assert ask(channel, name, "") == nothing
                for token in ("gk_x", ended):
                    assert ask(channel, name, token) in (
                        nothing,
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                    )
                for having, token in scoped.items():
                    code = ask(channel, name, token)
                    assert (code == denied) is (scope not in ALLOWED[having]), f"{name} {having}"
                    assert code != nothing
            stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            for token, wanted in (("", nothing), ("gk_x", nothing), (scoped["read"], denied)):
                more = [("authorization", f"Bearer {token}")] if token else []
                with pytest.raises(grpc.RpcError) as caught:
                    list(stream(iter([b""]), timeout=10, metadata=more))
                assert caught.value.code() in (wanted, grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert ask(channel, "SystemSharedMemoryRegister", "") == nothing
            assert ask(channel, "NoSuchMethod", "") == nothing

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve_here(home, script, grpc_port=port)


def test_a_page_elsewhere_asks_as_a_browser_does(home: Path) -> None:
    with Store.open(home) as store:
        _, token = add_key(store.ledger, "board", Grant(scopes=("read",)), by="me", now_ms=0)

    def ask(url: str, method: str, path: str, **more: str) -> tuple[int, HTTPMessage]:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        sent = {name.replace("_", "-"): value for name, value in more.items()}
        connection.request(method, path, headers={"Origin": PAGE, **sent})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert method != "OPTIONS" or not body
        return answer.status, answer.headers

    def script(client: Client) -> None:
        status, fields = ask(
            client.url, "OPTIONS", "/metrics",
            Access_Control_Request_Method="GET", Access_Control_Request_Headers="authorization",
        )  # fmt: skip
        assert status == 204
        assert "authorization" in fields["Access-Control-Allow-Headers"]
        key = f"Bearer {token}"
        for path, wanted, sent in [
            ("/metrics", 200, key),
            ("/nothing", 404, key),
            ("/v2/models/pump/infer", 403, key),
            ("/metrics", 401, ""),
            ("/metrics", 401, "Bearer gk_x"),
        ]:
            more = {"Authorization": sent} if sent else {}
            status, fields = ask(client.url, "GET", path, **more)
            assert status == wanted
            if status != 404:
                assert fields["Access-Control-Allow-Origin"] == PAGE, "the page may read it"

    serve_here(home, script, origins=(PAGE,))


def test_the_table_of_routes_is_the_one_that_answers() -> None:
    assert routes.ROUTES is ROUTES
    assert len(ROUTES) >= 13
