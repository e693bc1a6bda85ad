"""TLS of the server and of its clients: files that are checked before anything listens."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from genba.core.problem import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """A certificate and its key, as PEM files."""

    cert: Path  # the server's own certificate, then those that lead to one clients trust
    key: Path


def check_tls(tls: Tls, now: datetime | None = None) -> x509.Certificate:
    """Return the certificate of the server when it can be used.

    Args:
        tls: The files.
        now: The time for which it must hold.

    Raises:
        Problem: G750 when a file cannot be read, the key belongs to another certificate, or the
            certificate does not hold yet or any more.
    """
    try:
        certificate = x509.load_pem_x509_certificate(tls.cert.read_bytes())
    except (OSError, ValueError) as error:
        raise _refused(tls.cert, "is no certificate that can be read", str(error)) from error
    try:
        key = load_pem_private_key(tls.key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise _refused(tls.key, "is no private key that can be read", str(error)) from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise _refused(tls.key, f"is not the key of {tls.cert}", "They do not belong together.")
    moment = now or datetime.now(UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= moment < ends:
        raise _refused(
            tls.cert, "does not hold now", f"It holds from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}."
        )
    return certificate


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return how a server speaks TLS: 1.2 or newer, with forward secrecy.

    Raises:
        Problem: G750 as `check_tls`.
    """
    check_tls(tls)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of TLS 1.2; 1.3 has no other kind
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except ssl.SSLError as error:
        raise _refused(tls.cert, "cannot be used", str(error)) from error
    return context


def client_context(ca: Path | None = None) -> ssl.SSLContext:
    """Return how a client checks a server.

    Args:
        ca: Certificates to trust, as PEM; those of the system if not given.

    Raises:
        Problem: G750 when the file holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        assert ca is not None
        raise _refused(ca, "holds no certificates to trust", str(error)) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _refused(path: Path, what: str, why: str) -> Problem:
    return Problem(
        "G750",
        f"{path} {what}.",
        where=str(path),
        why=why,
        tries=[f"openssl x509 -in {path} -noout -dates -subject", "genba explain G750"],
    )
