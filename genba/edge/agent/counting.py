"""What an answer counts as, and whether two releases decided the same."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np

from genba.core.protocols import Array
from genba.edge.agent.rules import Tally
from genba.edge.predict import difference

_NEAR: Final = 0.05  # relative; numbers that are as near are the same decision
_MODEL: Final = "model"
_ABSTAIN: Final = ("abstain", "stop")
_UNUSUAL: Final = "unusual"
_SHARES: Final = 1 << 32
_MOST_KEYS: Final = 64


class Answered(Protocol):
    """What an envelope says; see `genba.edge.safety.Answer`."""

    @property
    def outputs(self) -> Mapping[str, Array] | None:
        """A batch of one; None where nobody but a person may decide."""
        ...

    @property
    def action(self) -> str:
        """Who answered: `model`, or what stood in for it."""
        ...

    @property
    def trips(self) -> tuple[Any, ...]:
        """Every layer that said no; each has a `layer` and a `part`."""
        ...


def tally_of(answer: Answered | None, of: Answered | None = None) -> Tally:
    """Return what one answer counts as.

    Args:
        answer: None where there was none.
        of: The answer of the release in service to the same input, where the two are compared.
    """
    if answer is None:
        return Tally(answers=1, failed=1)
    compared = of is not None and of.action == _MODEL and answer.action == _MODEL
    return Tally(
        answers=1,
        compared=int(compared),
        disagreed=int(compared and of is not None and not same(of.outputs, answer.outputs)),
        abstained=int(answer.action in _ABSTAIN),
        unlikely=int(any(trip.layer == _UNUSUAL for trip in answer.trips)),
        trips=sum(trip.part == _MODEL for trip in answer.trips),
    )


def same(one: Mapping[str, Array] | None, other: Mapping[str, Array] | None) -> bool:
    """Say whether two releases decided the same.

    Where they give decisions (whole numbers, yes or no, texts), those count; else the numbers must
    be near each other.

    Example:
        >>> yes, no = np.array([True]), np.array([False])
        >>> same({"alarm": yes, "score": np.array([1.2])}, {"alarm": yes, "score": np.array([1.9])})
        True
        >>> same({"alarm": yes}, {"alarm": no})
        False
    """
    if one is None or other is None:
        return one is other
    names = one.keys() & other.keys()
    decided = [name for name in names if one[name].dtype.kind != "f"]
    if decided:
        return all(np.array_equal(one[name], other[name]) for name in decided)
    return all(difference(one[name], other[name]) <= _NEAR for name in names)


class Canary:
    """Which inputs a release in its canary answers: a share of the entities, at least one.

    The same entity is always answered by the same release, so that nobody sees an alarm come and go
    because two releases take turns. With few entities a share by chance might be none of them,
    so they are ranked; what has very many keys, such as readings, is not remembered.

    Args:
        share: Of the inputs.
        salt: Differs from release to release, so that not always the same entity is tried on.

    Example:
        >>> canary = Canary(0.25, "r1")
        >>> sum(canary.takes(name) for name in ("a", "b", "c", "d") * 2)
        2
    """

    def __init__(self, share: float, salt: str) -> None:
        self._share = share
        self._salt = salt
        self._seen: dict[str, float] = {}

    def takes(self, key: str) -> bool:
        """Say whether it answers an input of this key."""
        place = self._seen.get(key)
        if place is None:
            place = share_of(f"{self._salt}/{key}")
            if len(self._seen) <= _MOST_KEYS:
                self._seen[key] = place
        if len(self._seen) > _MOST_KEYS:
            return place < self._share
        before = sum(other < place for other in self._seen.values())
        return before < max(1, round(self._share * len(self._seen)))


def share_of(key: str) -> float:
    """Return where a key lies between 0 and 1; the same for the same key, on every device.

    Example:
        >>> round(share_of("R80711"), 3)
        0.969
    """
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") / _SHARES
