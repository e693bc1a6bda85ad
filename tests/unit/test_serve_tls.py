"""TLS: files that are refused before anything listens, and a server that speaks it."""

import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from genba.core.problem import Problem
from genba.serve.access.tls import Tls, check_tls, client_context, server_context
from genba.serve.client import Client, environment_ca, environment_key
from genba.serve.limits import Limits
from genba.serve.server import serve
from genba.serve.settings import Settings
from genba.store.home import Store
from genba.store.keys import Grant, add_key, revoke_key
from genba.testing.graphs import small_batch
from genba.testing.serving import place, serve_here, small_package, until

FEW = small_batch(2)


def make_pair(folder: Path, name: str, *, days: int = 2) -> Tls:
    """Write a certificate for localhost that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / f"{name}.pem", folder / f"{name}-key.pem"
    cert_path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Tls(cert=cert_path, key=key_path)


@pytest.fixture
def pair(tmp_path: Path) -> Tls:
    return make_pair(tmp_path, "server")


def test_a_pair_that_holds(pair: Tls) -> None:
    assert check_tls(pair).subject.rfc4514_string() == "CN=server"
    context = server_context(pair)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert all("DHE" in c["name"] or c["protocol"] == "TLSv1.3" for c in context.get_ciphers())


def test_files_that_cannot_be_used(pair: Tls, tmp_path: Path) -> None:
    other = make_pair(tmp_path, "other")
    late = make_pair(tmp_path, "late", days=-1)
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for wrong, says in [
        (replace(pair, cert=tmp_path / "none"), "no certificate that can be read"),
        (replace(pair, cert=text), "no certificate that can be read"),
        (replace(pair, key=text), "no private key that can be read"),
        (replace(pair, key=other.key), "is not the key of"),
        (replace(pair, cert=pair.key), "no certificate"),
        (late, "does not hold now"),
    ]:
        with pytest.raises(Problem) as caught:
            server_context(wrong)
        assert caught.value.code == "G750"
        assert says in caught.value.what
    with pytest.raises(Problem) as caught:
        check_tls(pair, datetime.now(UTC) - timedelta(days=9))
    assert "It holds from" in caught.value.why
    for nothing in (tmp_path / "none", text):
        with pytest.raises(Problem) as caught:
            client_context(nothing)
        assert caught.value.code == "G750"


def test_a_chain_that_is_broken_behind_its_first_certificate(pair: Tls) -> None:
    with pair.cert.open("a") as file:
        file.write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(Problem) as caught:
        server_context(pair)
    assert caught.value.code == "G750"


def test_a_server_that_speaks_tls_to_whoever_has_a_key(
    home: Path, pair: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(home) as store:
        place(store, "pump", "deploy", small_package(store, "pump"))
        key, token = add_key(store.ledger, "mes", Grant(scopes=("infer",)), by="me", now_ms=0)

        def script(plain: Client) -> None:
            url = f"https://localhost:{plain.url.rpartition(':')[2]}"
            assert plain.ready() is False, "it does not speak HTTP without TLS"
            with Client(url) as distrusting:
                with pytest.raises(Problem) as caught:
                    distrusting.metadata("pump")
                assert "not one to trust" in caught.value.what
                assert "GENBA_CA" in caught.value.tries[0]
            monkeypatch.setenv("GENBA_CA", str(pair.cert))
            monkeypatch.setenv("GENBA_KEY", token)
            with Client(url, key=environment_key(), ca=environment_ca()) as client:
                assert client.infer("pump", FEW).role == "stable"
                assert client.ready("pump")
                with pytest.raises(Problem) as caught:
                    client.line("pump")
                assert caught.value.code == "G758", "its scope is infer"
                revoke_key(store.ledger, key.id, by="me")
                until(lambda: not client.ready("pump"))
                with pytest.raises(Problem) as caught:
                    client.infer("pump", FEW)
                assert caught.value.code == "G754", "on the connection that is open, too"
            with grpc.secure_channel(f"localhost:{grpc_port}", trust) as channel:
                live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
                assert live(b"", timeout=20) == b"\x08\x01", "gRPC over TLS, too"

        trust = grpc.ssl_channel_credentials(pair.cert.read_bytes())
        limits = Limits(keys_s=0.02, poll_s=0.02, sweep_s=0.05)
        with socket.create_server(("127.0.0.1", 0)) as free:
            grpc_port = free.getsockname()[1]
        serve_here(home, script, limits=limits, tls=pair, grpc_port=grpc_port)


def test_what_a_persons_commands_send(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GENBA_KEY", "GENBA_SERVE_KEY", "GENBA_CA"):
        monkeypatch.delenv(name, raising=False)
    assert environment_key() is None
    assert environment_ca() is None
    monkeypatch.setenv("GENBA_SERVE_KEY", "old")
    assert environment_key() == "old"
    monkeypatch.setenv("GENBA_KEY", "new")
    assert environment_key() == "new"


def test_it_does_not_listen_elsewhere_without_key_or_tls(home: Path, pair: Tls) -> None:
    with Store.open(home) as store:
        cases = [({}, "without a key"), ({"tls": pair}, "without a key")]
        for more, says in cases:
            with pytest.raises(Problem) as caught:
                serve(Settings(home=home, host="0.0.0.0", port=0, **more))  # type: ignore[arg-type]
            assert caught.value.code == "G702"
            assert says in caught.value.what
        _, token = add_key(store.ledger, "mes", Grant(scopes=("infer",), days=1), by="me", now_ms=0)
        with pytest.raises(Problem) as caught:
            serve(Settings(home=home, host="0.0.0.0", port=0, tls=pair))
        assert "without a key" in caught.value.what, "one that has expired is none"
        add_key(store.ledger, "mes", Grant(scopes=("infer",)), by="me", now_ms=0)
        with pytest.raises(Problem) as caught:
            serve(Settings(home=home, host="0.0.0.0", port=0))
        assert "without TLS" in caught.value.what
        with pytest.raises(Problem) as caught:
            serve(Settings(home=home, port=0, origins=("*",)))
        assert caught.value.code == "G753"
        assert token.startswith("gk_")


def test_a_proxy_may_speak_tls_instead(home: Path) -> None:
    with Store.open(home) as store:
        _, token = add_key(store.ledger, "mes", Grant(scopes=("read",)), by="me", now_ms=0)

    def script(stranger: Client) -> None:
        assert stranger.ready() is False
        with Client(stranger.url, key=token) as client:
            client._fields["Host"] = "factory.example"
            assert "genba_connections" in client.metrics()

    serve_here(home, script, host="0.0.0.0", behind_proxy=True)
