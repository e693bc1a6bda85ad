"""Known answers of a package, asked for while it is in service: is the model still itself?"""

from collections.abc import Callable
from typing import Any, Final

from genba.core.protocols import Array
from genba.edge.predict import difference, golden_samples

TOLERANCE: Final = 1e-3  # of float32; what another processor may change in the last digits
_COARSE: Final = {"bfloat16": 5e-2, "int8": 5e-2}


def known_cases(predictor: Any) -> Callable[[], str] | None:
    """Return a check that asks for one recorded answer after the other.

    Args:
        predictor: A `genba.edge.predict.Predictor`; anything else has no recorded answers.

    Returns:
        A function that says what is wrong, "" for nothing; None where there is nothing recorded.
    """
    package = getattr(predictor, "package", None)
    if package is None:
        return None
    inputs, expected = golden_samples(package)
    rows = len(next(iter(inputs.values()), ()))
    if not rows:
        return None
    precision = str(package.manifest.engine.settings.get("precision", ""))
    return KnownCases(predictor, inputs, expected, _COARSE.get(precision, TOLERANCE))


class KnownCases:
    """Recorded inputs and answers.

    Args:
        predictor: Answers.
        inputs: Recorded, [rows, ...] each.
        expected: What it answered when it was made.
        tolerance: Largest relative difference of a number; a decision may not differ at all.
    """

    def __init__(
        self,
        predictor: Any,
        inputs: dict[str, Array],
        expected: dict[str, Array],
        tolerance: float,
    ) -> None:
        self._predictor, self._tolerance = predictor, tolerance
        self._inputs, self._expected = inputs, expected
        self._rows = len(next(iter(inputs.values())))
        self._next = 0

    def __call__(self) -> str:
        """Ask for the next known answer; return what is wrong with it."""
        at = slice(self._next, self._next + 1)
        self._next = (self._next + 1) % self._rows
        try:
            found = self._predictor.predict({name: t[at] for name, t in self._inputs.items()})
        except Exception as error:  # noqa: BLE001  a runtime may fail in any way
            return f"a known case was not answered: {type(error).__name__}"
        for name, expected in self._expected.items():
            away = difference(expected[at], found[name]) if name in found else float("inf")
            if not away <= self._tolerance:
                return f"a known case is answered otherwise: {name} differs by {away:.2g}"
        return ""
