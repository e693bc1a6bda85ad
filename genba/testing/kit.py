"""Run one entry of the catalog through the contract of its kind: `genba check NAME`.

Tasks and sources need something to be checked with. Genba has it for its own; one from another
package brings it along as a static method `example(folder)` that writes a little data to the
folder and returns, for a task, the line that reads it, and for a source its address.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.core.protocols import JsonObject
from genba.core.resolve import names, resolve
from genba.targets.registry import target_names
from genba.testing.checks import CheckResult, Checks, run_checks
from genba.testing.engines import engine_checks
from genba.testing.sources import check_source
from genba.testing.talks import talks_checks
from genba.testing.targets import check_target
from genba.testing.tasks import check_task

#: With which settings an engine is checked, where not with what it offers itself. What wraps
#: another entry needs to be told which.
WRAPPED: Final[Mapping[str, Sequence[JsonObject]]] = {
    "faulty": [
        {"engine": "onnxruntime", "settings": {"precision": "float32"}, "after": 1_000_000_000}
    ],
    # Exact numbers, and threads that do not wait for each other on a busy machine.
    "llama-cpp": [{"threads": 1}],
    "openvino-talk": [
        {"weights": "f32", "cache": "f32"},
        {"weights": "f16"},
        {"weights": "int8"},
        {"weights": "q8_0"},
        {"weights": "int4"},
    ],
}

#: Language models that say what a script or others tell them: their own tests have those.
_ELSEWHERE: Final = frozenset({"speller", "upstream"})

#: The kinds that have a contract.
CHECKED: Final = ("task", "engine", "source", "target")


def check(kind: str, name: str, address: str = "") -> tuple[CheckResult, ...]:
    """Run one entry through its contract.

    Args:
        kind: "task", "engine", "source" or "target".
        name: Name in the catalog.
        address: For a source: what to read.

    Returns:
        One result per check. What breaks before the first of them is a result too: a module that
        cannot be imported, a class that cannot be made.

    Raises:
        Problem: G105 when nothing has that name, G901 when its library is missing, G610 when there
            is no generated data to check it with.
    """
    checks: dict[str, Callable[[], tuple[CheckResult, ...]]] = {
        "task": lambda: check_task(name),
        "engine": lambda: run_checks(checks_of_engine(name)),
        "source": lambda: check_source(name, address),
        "target": lambda: check_target(name),
    }
    try:
        return checks[kind]()
    except Problem:
        raise
    except Exception as error:  # noqa: BLE001  # whatever foreign code raises is the finding
        reason = f"{type(error).__name__}: {error}"
        return (CheckResult(name="can be loaded and made ready", passed=False, reason=reason),)


def checks_of_engine(name: str) -> Checks:
    """Return the checks of an engine by name, of graphs or of language models."""
    if name in _ELSEWHERE:
        return {}
    talks = hasattr(resolve("engine", name), "ask")
    return (talks_checks if talks else engine_checks)(name, WRAPPED.get(name))


def entries(kind: str) -> tuple[str, ...]:
    """Return the names of a kind that can be checked; devices have names of their own.

    Example:
        >>> "raspberry-pi-5" in entries("target")
        True
    """
    return tuple(names(kind)) if kind != "target" else tuple(target_names())


def kind_of(name: str) -> str:
    """Return the kind of the catalog entry with that name.

    Raises:
        Problem: G105 when no task, engine, source or target has that name.

    Example:
        >>> kind_of("openvino")
        'engine'
    """
    for kind in CHECKED:
        if name in entries(kind):
            return kind
    known = [n for kind in CHECKED for n in entries(kind)]
    near = nearest(name, known)
    raise Problem(
        "G105",
        f"There is no task, engine, source or target {name!r}"
        + (f"; did you mean {near}?" if near else "."),
        why=f"Known: {', '.join(sorted(known))}.",
        tries=[f"genba check {near or known[0]}", "genba doctor"],
    )
