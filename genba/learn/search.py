"""Successive halving over candidates, checkpointed after every trial.

Many settings are tried on a quarter of the rows, the better third of them on half, the best few
on all. The budget counts trials, so the result for a seed does not depend on how fast the machine
is; the budget in minutes only cuts the search short. A killed search resumes behind its last trial.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.digest import digest_json
from genba.runs.effort import Effort

Trial = dict[str, Any]
Space = Mapping[str, Mapping[str, Sequence[Any]]]

FRACTIONS: Final = (0.25, 0.5, 1.0)
_KEEP: Final = 3  # one of so many goes on to the next rung


def plan(space: Space, trials: int, seed: int) -> list[Trial]:
    """Choose which settings to try first.

    Every candidate begins with its first values (the defaults); the rest is drawn at random
    without repetition, candidates taking turns.

    Args:
        space: Candidate -> setting -> values, the default first.
        trials: Trials the whole search may use.
        seed: Seed of the draw.

    Example:
        >>> plan({"ridge": {"knots": [8, 16]}, "pca": {"share": [0.9]}}, 12, 0)[0]
        {'candidate': 'ridge', 'settings': {'knots': 8}}
    """
    rng = np.random.default_rng(seed)
    wanted = first_rung(trials)
    queues = {name: _draw(options, wanted, rng) for name, options in space.items()}
    planned: list[Trial] = []
    while len(planned) < wanted and any(queues.values()):
        for name, queue in queues.items():
            if queue and len(planned) < wanted:
                planned.append({"candidate": name, "settings": queue.pop(0)})
    return planned


def first_rung(trials: int) -> int:
    """Return how many settings can start so that all rungs together stay within the trials.

    Example:
        >>> first_rung(12), first_rung(1)
        (8, 1)
    """
    start = max(1, trials)
    while start > 1 and sum(rungs(start)) > trials:
        start -= 1
    return start


def rungs(start: int) -> list[int]:
    """Return the number of trials on each rung; a single setting needs only the last one."""
    if start == 1:
        return [1]
    sizes = [start]
    for _ in FRACTIONS[1:]:
        sizes.append(max(1, -(-sizes[-1] // _KEEP)))
    return sizes


def search(
    planned: Sequence[Trial], evaluate: Callable[[Trial, float], float], effort: Effort
) -> tuple[Trial, list[Trial]]:
    """Find the settings with the smallest loss.

    Args:
        planned: What to try, from `plan`.
        evaluate: (trial, fraction of the rows) -> loss; smaller is better, NaN counts as worst.
        effort: Budget, checkpoint and progress.

    Returns:
        The best trial and every trial with its rung and loss, in the order they were made.

    Raises:
        Cancelled: When the user asked to stop; the next call goes on from the checkpoint.
    """
    key = digest_json([list(planned), FRACTIONS, _KEEP])
    done = _resume(effort, key)
    sizes = rungs(len(planned))
    standing = list(planned)
    first = len(FRACTIONS) - len(sizes)
    for rung, size in enumerate(sizes, start=first):
        results = []
        for trial in standing[:size]:
            made = _find(done, trial, rung)
            if made is None:
                effort.check()
                if effort.expired and done:
                    return _best(done), done
                made = {**trial, "rung": rung, "loss": _finite(evaluate(trial, FRACTIONS[rung]))}
                done.append(made)
                effort.checkpoint.save({"search": key, "trials": done})
            effort.progress.step(
                f"{trial['candidate']} {_describe(trial['settings'])}", len(done), sum(sizes)
            )
            results.append(made)
        results.sort(key=lambda t: float(t["loss"]))  # stable: ties keep their order
        standing = [{"candidate": t["candidate"], "settings": t["settings"]} for t in results]
    return _best(done), done


def _draw(
    options: Mapping[str, Sequence[Any]], wanted: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    drawn = [{name: values[0] for name, values in options.items()}]
    for _ in range(20 * wanted):
        if len(drawn) >= wanted:
            break
        one = {name: values[int(rng.integers(len(values)))] for name, values in options.items()}
        if one not in drawn:
            drawn.append(one)
    return drawn


def _resume(effort: Effort, key: str) -> list[Trial]:
    saved = effort.checkpoint.load()
    if saved is None or saved[0].get("search") != key:
        return []
    return list(saved[0]["trials"])


def _find(done: Sequence[Trial], trial: Trial, rung: int) -> Trial | None:
    for made in done:
        if made["rung"] == rung and all(made[k] == trial[k] for k in ("candidate", "settings")):
            return made
    return None


def _best(done: Sequence[Trial]) -> Trial:
    return min(done, key=lambda t: (-int(t["rung"]), float(t["loss"])))


def _finite(loss: float) -> float:
    return float(loss) if np.isfinite(loss) else 1e300  # JSON has no infinity


def _describe(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())
