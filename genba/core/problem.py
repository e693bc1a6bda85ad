"""The one error a user sees: a sentence, where it happened, why, and what to type next."""

from collections.abc import Iterable
from typing import Any, Final

#: First digit after the letter -> exit code of the command (see `genba --help`).
EXIT_CODES: Final = {
    "G1": 2,  # line file and usage
    "G2": 2,  # data
    "G3": 3,  # store: disk, database, damaged files
    "G4": 4,  # runs: budget spent, cancelled, taken by another process
    "G5": 1,  # the answer is no: gates, comparisons, approvals
    "G6": 3,  # engines, packages, targets
    "G7": 3,  # serving
    "G8": 2,  # feedback and the loop
    "G9": 3,  # environment: missing library, no network
}


class Problem(Exception):
    """An error that says what happened and what to do about it.

    Args:
        code: Stable code such as ``G102``; `genba explain CODE` prints its page.
        what: One sentence saying what is wrong, with numbers and units.
        where: File, line, row, field or id the problem is about.
        why: The reason or the evidence, when it is not obvious from `what`.
        tries: Things to do next, most useful first; commands can be typed as they stand.

    Example:
        >>> p = Problem("G101", "The line file pump.toml does not exist.", tries=["genba new pump"])
        >>> p.exit_code
        2
        >>> p.to_json()["try"]
        ['genba new pump']
    """

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str = "",
        why: str = "",
        tries: Iterable[str],
    ) -> None:
        super().__init__(f"{code}  {what}")
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.tries = tuple(tries)

    @property
    def exit_code(self) -> int:
        """The process exit code that belongs to this family of problems."""
        return EXIT_CODES[self.code[:2]]

    def to_json(self) -> dict[str, Any]:
        """Return the problem as plain data, the same fields a person is shown."""
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "try": list(self.tries),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep all fields when a worker process hands the problem to its parent."""
        return (_rebuild, (self.code, self.what, self.where, self.why, self.tries))


def _rebuild(code: str, what: str, where: str, why: str, tries: tuple[str, ...]) -> Problem:
    return Problem(code, what, where=where, why=why, tries=tries)
