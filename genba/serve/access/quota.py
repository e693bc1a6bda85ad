"""How much one key may ask: a token bucket and a counter, both O(1); and who sends wrong keys.

A token bucket (Turner 1986, "New directions in communications") holds a second's worth of
requests and fills at the rate that was agreed, so that a short burst passes and a long one does
not.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from genba.core.keys import Key
from genba.serve.http.responses import Refusal

_PEERS: Final = 4_096  # addresses whose wrong keys are counted at the same time
_WRONG_BURST: Final = 20
_WRONG_RATE: Final = 0.2  # per second: one wrong key in five seconds

#: Code of a refusal here -> why the request was shed, for the metrics.
SHED: Final = {"G755": "key_rate", "G756": "key_concurrency"}


class Bucket:
    """Tokens that come back at a fixed rate.

    Args:
        rate: Tokens per second.
        size: How many it holds; it begins full.
        now_s: Time, as `take` gets it.

    Example:
        >>> bucket = Bucket(rate=2.0, size=1.0, now_s=0.0)
        >>> bucket.take(0.0), bucket.take(0.0), bucket.take(0.5)
        (0.0, 0.5, 0.0)
    """

    __slots__ = ("_last_s", "_rate", "_size", "_tokens")

    def __init__(self, rate: float, size: float, now_s: float) -> None:
        self._rate = rate
        self._size = self._tokens = size
        self._last_s = now_s

    def take(self, now_s: float) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        tokens = min(self._size, self._tokens + (now_s - self._last_s) * self._rate)
        self._last_s = now_s
        if tokens < 1.0:
            self._tokens = tokens
            return (1.0 - tokens) / self._rate
        self._tokens = tokens - 1.0
        return 0.0


class Quota:
    """What is left of one key's limits in this process; shared by everybody who shows the key.

    Args:
        key: With the limits.
        workers: Processes that share the port, each of which grants its part of the limits.
        clock: Seconds, for the rate.
        today: Seconds since 1970 UTC, for the expiry.
    """

    __slots__ = ("_bucket", "_clock", "_expires_s", "_free", "_today", "used")

    def __init__(
        self,
        key: Key,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._today = today
        self._expires_s = math.inf if key.expires_ms is None else key.expires_ms / 1_000
        rate = None if key.rate is None else key.rate / workers
        self._bucket = rate and Bucket(rate, max(1.0, rate), clock())
        at_once = None if key.concurrent is None else max(1, key.concurrent // workers)
        self._free: float = math.inf if at_once is None else at_once
        self.used = False

    def take(self) -> Refusal | None:
        """Let one request in, or say why not; who was let in is counted until `give_back`."""
        self.used = True
        if self._expires_s != math.inf and self._today() >= self._expires_s:
            return expired()
        if self._free < 1:
            return _too_much("G756", "As many requests with this key are open as it allows.", 1.0)
        wait_s = self._bucket.take(self._clock()) if self._bucket else 0.0
        if wait_s:
            return _too_much("G755", "This key is used more often than it allows.", wait_s)
        self._free -= 1
        return None

    def give_back(self) -> None:
        """Count a request that was let in as done."""
        self._free += 1


class WrongKeys:
    """Counts wrong keys by the address they came from; holds a bounded number of addresses.

    A right key is never refused here: an address may be shared with whoever sends the wrong ones.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._peers: OrderedDict[str, Bucket] = OrderedDict()

    def count(self, peer: str) -> Refusal | None:
        """Take note of a wrong key; return what to answer instead once there were too many."""
        now_s = self._clock()
        bucket = self._peers.pop(peer, None) or Bucket(_WRONG_RATE, _WRONG_BURST, now_s)
        self._peers[peer] = bucket
        if len(self._peers) > _PEERS:
            self._peers.popitem(last=False)
        wait_s = bucket.take(now_s)
        return wait_s and _too_much("G757", "Too many wrong keys came from here.", wait_s) or None


def expired() -> Refusal:
    """Refuse a key whose time is over."""
    return Refusal(401, "G754", "This key has expired.", b"WWW-Authenticate: Bearer\r\n")


def _too_much(code: str, what: str, wait_s: float) -> Refusal:
    return Refusal(429, code, what, b"Retry-After: %d\r\n" % max(1, math.ceil(wait_s)))
