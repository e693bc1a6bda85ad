"""Who may ask: where the server may listen, which hosts it answers to, and keys."""

import functools
import hmac
import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from genba.core.problem import Problem
from genba.serve.responses import Refusal

_HOST: Final = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(:[0-9]+)?")
_SAME_SITE: Final = frozenset({b"same-origin", b"none"})


def is_loopback(host: str) -> bool:
    """Say whether an address can be reached from this machine only.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_bind(host: str, key: str | None, *, behind_tls: bool) -> None:
    """Refuse to listen where strangers could ask, or read along.

    Raises:
        Problem: G702 for an address that is not loopback without a key, or without TLS in front.
    """
    if is_loopback(host) or (key and behind_tls):
        return
    missing = "a key" if not key else "TLS in front of it"
    raise Problem(
        "G702",
        f"The server does not listen on {host} without {missing}.",
        where=host,
        why="Anyone who reaches that address could ask for predictions or read them.",
        tries=[
            "genba up --host 127.0.0.1",
            f"GENBA_SERVE_KEY=… GENBA_SERVE_BEHIND_TLS=1 genba up --host {host}",
        ],
    )


class Access:
    """Decides about every request before anything else is looked at.

    Without a key only this machine can ask, but its browser might do so for a stranger's page:
    therefore the Host must be this machine and a page of another origin is turned away.

    Args:
        key: What clients must send as `Authorization: Bearer KEY`; None for loopback.
    """

    def __init__(self, key: str | None = None) -> None:
        self._expected = b"Bearer " + key.encode() if key else None

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass.

        Raises:
            Refusal: 400 without Host, 401 without the key, 403 for another host or origin.
        """
        host = headers.get(b"host")
        if host is None:
            raise Refusal(400, "G708", "The request has no Host field.")
        if self._expected is not None:
            sent = headers.get(b"authorization", b"")
            if not hmac.compare_digest(sent, self._expected):
                fields = b"WWW-Authenticate: Bearer\r\n"
                raise Refusal(401, "G709", "The key is missing or wrong.", fields)
        elif not _names_loopback(host):
            raise Refusal(403, "G709", "This server answers to its own machine only.")
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin is not None and origin.partition(b"://")[2] != host:
            raise Refusal(403, "G709", "Pages of another origin may not ask.")
        if site is not None and site not in _SAME_SITE:
            raise Refusal(403, "G709", "Pages of another site may not ask.")


@functools.lru_cache(maxsize=64)
def _names_loopback(host: bytes) -> bool:
    """Say whether a Host field, with its port if there is one, names this machine."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    return found is not None and is_loopback(found["address"] or found["name"])
