"""Who may ask: where the server may listen, which hosts and pages it answers to, and keys."""

import functools
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from genba.core.keys import SCOPES, Key, token_digest, token_id
from genba.core.problem import Problem
from genba.serve.access.quota import Quota, WrongKeys, expired
from genba.serve.http.responses import Refusal

_HOST: Final = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(:[0-9]+)?")
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
_SAME_SITE: Final = frozenset({b"same-origin", b"none"})
_LONGEST_KEY: Final = 1_024

#: Scope of an address that answers without a key: that the process is alive, and nothing else.
ANYONE: Final = "anyone"
#: Scope of an address that every key may ask: what the server and a line are, as data.
DESCRIBE: Final = "describe"
_EVERYTHING: Final = frozenset({*SCOPES, DESCRIBE, ANYONE})
_PAGE: Final = _EVERYTHING - {"deploy", "admin"}

_ASK_FOR_KEY: Final = b"WWW-Authenticate: Bearer\r\n"
_VARY: Final = b"Vary: Origin\r\n"
_PREFLIGHT: Final = (
    b"Access-Control-Allow-Methods: GET, HEAD, POST\r\n"
    b"Access-Control-Allow-Headers: authorization, content-type, traceparent, "
    b"inference-header-content-length, x-genba-deadline-ms, x-genba-priority\r\n"
    b"Access-Control-Max-Age: 600\r\n"
)
_EXPOSED: Final = b"Access-Control-Expose-Headers: Inference-Header-Content-Length, Retry-After\r\n"


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


def check_bind(host: str, *, keys: bool, tls: bool, behind_proxy: bool) -> None:
    """Refuse to listen where strangers could ask, or read along.

    Args:
        host: Address to bind.
        keys: Whether there is a key in force.
        tls: Whether this server speaks TLS.
        behind_proxy: Whether a proxy speaks TLS in front of it, and passes strangers on.

    Raises:
        Problem: G702 for an address that others reach, without a key, or without TLS.
    """
    if is_loopback(host) and not behind_proxy:
        return
    if keys and (tls or behind_proxy):
        return
    missing = "TLS, by itself or in front of it" if keys else "a key"
    raise Problem(
        "G702",
        f"The server does not listen on {host} without {missing}.",
        where=host,
        why="Anyone who reaches that address could ask for predictions or read them.",
        tries=[
            "genba up --host 127.0.0.1",
            f"genba up --host {host} --tls-cert FILE --tls-key FILE"
            if keys
            else "genba keys add NAME --scope infer",
        ],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What holds for all requests, whoever sends them."""

    loopback: bool = True  # bound to an address of this machine only
    behind_proxy: bool = False  # then the Host is the proxy's
    origins: frozenset[bytes] = frozenset()  # of pages elsewhere that may ask
    workers: int = 1  # processes that share the port, and with it the limits of a key


def parse_origin(text: str) -> bytes:
    """Return an origin as a browser sends it.

    Raises:
        Problem: G753 for what is not scheme, host and port.

    Example:
        >>> parse_origin("https://Board.example:8443/")
        b'https://board.example:8443'
    """
    origin = text.lower().removesuffix("/")
    if not _ORIGIN.fullmatch(origin):
        raise Problem(
            "G753",
            f"{text!r} is not the origin of a page.",
            where="--allow-origin",
            why="An origin is scheme, host and port, without a path; there is no wildcard.",
            tries=["genba up --allow-origin https://board.example:8443"],
        )
    return origin.encode()


class Caller:
    """Who sent a request, as far as its header says.

    Attributes:
        id: Of the key; empty where none was shown.
        scopes: What it allows.
        lines: Lines it is for; empty for all of them.
        access: Tags of documents that an assistant may answer from.
        fields: Header fields that belong on every answer, for pages of an allowed origin.
    """

    __slots__ = ("_quota", "access", "fields", "id", "lines", "scopes")

    def __init__(
        self,
        id: str,
        scopes: frozenset[str],
        lines: frozenset[str] = frozenset(),
        fields: bytes = b"",
        quota: Quota | None = None,
        access: frozenset[str] = frozenset(),
    ) -> None:
        self.id = id
        self.scopes = scopes
        self.lines = lines
        self.access = access
        self.fields = fields
        self._quota = quota

    @property
    def known(self) -> bool:
        """Whether it may ask for more than a sign of life."""
        return len(self.scopes) > 1

    def allow(self, scope: str | None, line: str | None = "") -> None:
        """Let the request on to what has a scope; None is what nobody may ask.

        Args:
            scope: Of the address.
            line: Which line the address is about; empty for none, None where the body names it:
                then `allow_line` follows.

        Raises:
            Refusal: 401 without a key, 403 with one that does not allow this.
        """
        more = self.fields
        if scope not in self.scopes:
            if not self.known:
                raise Refusal(401, "G709", "This server asks for a key.", _ASK_FOR_KEY + more)
            what = f"This needs the scope {scope}." if scope else "This is nobody's to ask."
            raise Refusal(403, "G758", what, more)
        if line is not None and (line or scope not in (DESCRIBE, ANYONE)):
            self.allow_line(line)

    def allow_line(self, line: str) -> None:
        """Let the request on to a line.

        Raises:
            Refusal: 403 with a key that is for other lines.
        """
        if self.lines and line not in self.lines:
            what = "This key is for some lines only, and not for this."
            raise Refusal(403, "G759", what, self.fields)

    def admit(self) -> Refusal | None:
        """Let one request in, or say why not; `done` must follow once it is answered."""
        refusal = None if self._quota is None else self._quota.take()
        if refusal is not None:
            refusal.fields += self.fields
        return refusal

    def done(self) -> None:
        """Count a request that was let in as answered."""
        if self._quota is not None:
            self._quota.give_back()


class WrongKey(Refusal):
    """A key that opens nothing; whoever sends many of them is told to wait."""

    def __init__(self) -> None:
        super().__init__(401, "G709", "The key is wrong.", _ASK_FOR_KEY)


class Access:
    """Decides about every request before anything else is looked at.

    While there never was a key, only this machine can ask, but its browser might do so for a
    stranger's page: therefore the Host must be this machine, and a page of another origin is
    turned away. From the first key on, every request needs one, also when the last is revoked.

    Args:
        key: One that allows everything, from the environment; None for none.
        rules: What holds for everybody.
        clock: Seconds, for rates.
        today: Seconds since 1970 UTC, for expiry.
    """

    def __init__(
        self,
        key: str | None = None,
        rules: Rules = Rules(),  # frozen
        *,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self.version = 0  # changes with the keys; what `check` said before holds no longer
        self._master = key.encode() if key else None
        self._rules = rules
        self._clock = clock
        self._today = today
        self._wrong = WrongKeys(clock)
        self._keys: dict[str, Key] = {}
        self._quotas: dict[str, Quota] = {}
        self._asks_for_key = bool(key) or not rules.loopback or rules.behind_proxy

    def update(self, keys: Mapping[str, Key]) -> None:
        """Take the keys as they are now; called on the event loop."""
        made = self._rules.workers, self._clock, self._today
        self._quotas = {id: self._quotas.get(id) or Quota(k, *made) for id, k in keys.items()}
        self._keys = dict(keys)
        self._asks_for_key = self._asks_for_key or bool(keys)
        self.version += 1

    def used(self) -> set[str]:
        """Return the ids of keys that were used since this was asked last."""
        ids = {id for id, quota in self._quotas.items() if quota.used}
        for id in ids:
            self._quotas[id].used = False
        return ids

    def check(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Say who sent a request.

        The answer depends on the header fields alone, until `version` changes.

        Raises:
            Refusal: 400 without Host, 401 for a wrong key, 403 for another host or origin.
        """
        fields = self._check_origin(headers)
        sent = headers.get(b"authorization")
        if not self._asks_for_key:
            page = b"origin" in headers or b"sec-fetch-site" in headers
            return Caller("", _PAGE if page else _EVERYTHING, fields=fields)
        if sent is None:
            return Caller("", frozenset({ANYONE}), fields=fields)
        try:
            return self._holder(sent, fields)
        except Refusal as refusal:
            refusal.fields += fields
            raise

    def count_wrong(self, peer: str) -> Refusal | None:
        """Take note that an address sent a wrong key; return a refusal once it sent too many."""
        return self._wrong.count(peer)

    def preflight(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        """Return the fields that tell a browser what a page of an allowed origin may send.

        Args:
            headers: Of an OPTIONS request.

        Returns:
            The fields of the answer, which has no body; None for any other request.
        """
        asked = headers.get(b"access-control-request-method")
        origin = headers.get(b"origin")
        if asked is None or origin not in self._rules.origins or not self._host_is_ours(headers):
            return None
        private = b"access-control-request-private-network" in headers
        more = b"Access-Control-Allow-Private-Network: true\r\n" if private else b""
        return _allowing(origin) + _PREFLIGHT + more

    def _holder(self, sent: bytes, fields: bytes) -> Caller:
        kind, _, token = sent.partition(b" ")
        if kind.lower() != b"bearer" or len(token) > _LONGEST_KEY:
            raise WrongKey
        if self._master is not None and hmac.compare_digest(token, self._master):
            return Caller("environment", _EVERYTHING, fields=fields)
        key = self._keys.get(token_id(token) or "")
        if key is None:  # nothing was hashed for it
            raise WrongKey
        if not hmac.compare_digest(token_digest(token).encode(), key.digest.encode()):
            raise WrongKey
        state = key.state(round(self._today() * 1_000))
        if state == "expired":
            raise expired()
        if state != "valid":
            raise Refusal(401, "G754", "This key was revoked.", _ASK_FOR_KEY)
        scopes = _EVERYTHING if "admin" in key.scopes else key.scopes | {DESCRIBE, ANYONE}
        return Caller(key.id, scopes, key.lines, fields, self._quotas[key.id], key.access)

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the fields for a page of an allowed origin; refuse every other page."""
        if not self._host_is_ours(headers):
            raise Refusal(403, "G709", "This server answers to its own machine only.")
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin is not None:
            if origin in self._rules.origins:
                return _allowing(origin) + _EXPOSED
            if origin.partition(b"://")[2] != headers[b"host"]:
                raise Refusal(403, "G709", "Pages of another origin may not ask.")
        if site is not None and site not in _SAME_SITE:
            raise Refusal(403, "G709", "Pages of another site may not ask.")
        return b""

    def _host_is_ours(self, headers: Mapping[bytes, bytes]) -> bool:
        host = headers.get(b"host")
        if host is None:
            raise Refusal(400, "G708", "The request has no Host field.")
        # Elsewhere the key protects: a page that names a host of its own has none to send.
        return not self._rules.loopback or self._rules.behind_proxy or _names_loopback(host)


def _allowing(origin: bytes) -> bytes:
    return b"Access-Control-Allow-Origin: %b\r\n%b" % (origin, _VARY)


@functools.lru_cache(maxsize=64)
def _names_loopback(host: bytes) -> bool:
    """Say whether a Host field, with its port if there is one, names this machine."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    return found is not None and is_loopback(found["address"] or found["name"])
