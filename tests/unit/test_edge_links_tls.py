"""A broker that proves who it is, and one that cannot."""

import datetime
import ipaddress
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from genba.edge.links.settings import MqttSettings
from genba.testing.broker import Broker, installed
from tests.unit.test_edge_links_mqtt import device, publish_all, until

pytestmark = [
    pytest.mark.slow,
    # Where the other side cannot prove itself, the library leaves its socket to be collected.
    pytest.mark.filterwarnings("ignore:.*unclosed <ssl:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif("mosquitto" not in installed(), reason="only mosquitto is asked for TLS"),
]


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Return a certificate that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def test_only_a_broker_that_is_vouched_for(tmp_path: Path) -> None:
    own, key = certificate(tmp_path, "broker")
    other, _ = certificate(tmp_path, "somebody")
    secret = tmp_path / "password"
    secret.write_text("from a file\n")
    with Broker(tmp_path / "b", "mosquitto", f"user root\ncertfile {own}\nkeyfile {key}") as broker:
        given = MqttSettings(
            name="broker",
            address=broker.address.replace("mqtt:", "mqtts:"),
            answers="a/{entity}",
            user="device",
            password_file=str(secret),
            ca_file=str(own),
        )
        with device(given) as made:
            until(lambda: made.link.standing.connected)
            assert publish_all(made.link, 3) == [0, 1, 2]
        with device(replace(given, ca_file=str(other))) as made:
            time.sleep(0.5)
            assert not made.link.standing.connected
            assert not made.link.publish(1, {"entity": "a"})
