"""Which package answers a request: a pure function of the rollout and the request's number.

The numbers times the golden ratio, modulo one, fall evenly over [0, 1) however they are thinned
out. So a canary with a share of a tenth gets a tenth of any stretch of traffic, and also a tenth
of each machine's requests when the machines report in turn, which "every tenth" would not give.
"""

from typing import Final, Generic, TypeVar

from genba.core.values import Role

T = TypeVar("T")

_GOLDEN: Final = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio
_RANGE: Final = 2**64


def falls_in_share(number: int, share: float, salt: int = 0) -> bool:
    """Say whether a request belongs to the share of the traffic that a canary answers.

    Args:
        number: Running number of the request.
        share: From 0 to 1.
        salt: Moves the pattern, so that two canaries do not see the same requests.

    Example:
        >>> sum(falls_in_share(n, 0.1) for n in range(1000))
        100
    """
    return (number * _GOLDEN + salt * _GOLDEN * _GOLDEN) % _RANGE < share * _RANGE


class Routes(Generic[T]):
    """The packages of one line in their roles; replaced as a whole, never changed.

    Args:
        stable: Answers what the canary does not; without it nothing is answered.
        canary: Answers `share` of the requests.
        share: From 0 to 1.
        shadow: Sees every request and answers none.
        salt: Of the canary's pattern.
    """

    __slots__ = ("canary", "salt", "shadow", "share", "stable")

    def __init__(
        self,
        stable: T | None = None,
        canary: T | None = None,
        share: float = 0.0,
        shadow: T | None = None,
        salt: int = 0,
    ) -> None:
        self.stable = stable
        self.canary = canary
        self.share = share
        self.shadow = shadow
        self.salt = salt

    def choose(self, number: int) -> tuple[T, Role] | None:
        """Return who answers request `number` and in which role; None when nobody can.

        Example:
            >>> routes = Routes("a", canary="b", share=0.25, shadow="c")
            >>> sorted({routes.choose(n) for n in range(20)})
            [('a', 'stable'), ('b', 'canary')]
        """
        if self.stable is None:
            return None
        if self.canary is not None and falls_in_share(number, self.share, self.salt):
            return self.canary, "canary"
        return self.stable, "stable"
