"""A contract as small named checks, each with one sentence when it fails."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from genba.core.problem import Problem

Checks = Mapping[str, Callable[[], None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What became of one check."""

    name: str
    passed: bool
    reason: str = ""  # one sentence when it failed
    seconds: float = 0.0


class CheckFailed(AssertionError):
    """A contract does not hold; the message says which part, with numbers."""


def require(holds: bool, sentence: str) -> None:
    """Raise `CheckFailed` with the sentence unless something holds."""
    if not holds:
        raise CheckFailed(sentence)


def require_problem(action: Callable[[], object], codes: Sequence[str], when: str) -> Problem:
    """Require that an action raises a helpful Problem.

    Args:
        action: What must be refused.
        codes: The codes it may have.
        when: The circumstance, for the sentence: "for an unknown setting".

    Returns:
        The problem.
    """
    try:
        action()
    except Problem as problem:
        require(problem.code in codes, f"{when}: raised {problem.code}, not {' or '.join(codes)}")
        require(problem.what.endswith((".", "?")), f"{when}: {problem.what!r} is no sentence")
        require(bool(problem.tries), f"{when}: the problem does not say what to try")
        return problem
    except Exception as error:  # the point is to see what else it raises
        raise CheckFailed(f"{when}: raised {type(error).__name__}, not a Problem") from error
    raise CheckFailed(f"{when}: was accepted")


def run_checks(checks: Checks) -> tuple[CheckResult, ...]:
    """Run every check and report all of them; one that crashes has failed."""
    return tuple(_run(name, check) for name, check in checks.items())


def _run(name: str, check: Callable[[], None]) -> CheckResult:
    started = time.perf_counter()
    reason = ""
    try:
        check()
    except CheckFailed as failed:
        reason = str(failed)
    except Problem as problem:
        reason = f"{problem.code} {problem.what} {problem.why}".strip()
    except Exception as error:  # noqa: BLE001  # whatever foreign code raises is the finding
        reason = f"{type(error).__name__}: {error}"
    seconds = round(time.perf_counter() - started, 3)
    return CheckResult(name=name, passed=not reason, reason=reason, seconds=seconds)
