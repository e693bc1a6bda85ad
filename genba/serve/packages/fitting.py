"""Turn what was asked for into what can be done: a rollout, less the packages that cannot serve."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from genba.core.problem import Problem
from genba.core.rollout import Placed, Rollout
from genba.core.values import Manifest
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.placement import Placement
from genba.serve.oip.schema import same_requests

_INCOMPATIBLE: Final = "G710"


def needed(rollout: Rollout) -> tuple[str, ...]:
    """Return what must be ready: what is in service, and what a rollback returns to."""
    return (*rollout.packages, *((rollout.previous,) if rollout.previous else ()))


def fit(
    held: Placement,
    rollout: Rollout,
    manifests: Mapping[str, Manifest],
    models: Mapping[str, LoadedModel],
    failed: Mapping[str, str],
) -> tuple[Placement, tuple[Problem, ...]]:
    """Return what a line can have in service.

    Where the stable package cannot serve, the line keeps the one it has; where it has none, as
    after a restart, it goes back to the one before. A canary or shadow that cannot is left out.

    Args:
        held: What the line has now.
        rollout: What was asked for.
        manifests: Of the packages that can serve.
        models: Those of them that are in memory; the others sleep.
        failed: Those that cannot, and why.

    Returns:
        The placement, and a problem for each challenger that takes other requests.
    """
    if rollout.stable and rollout.stable.package not in manifests:
        kept = held.rollout.stable
        if kept and kept.package not in failed:
            return _without(held, failed), ()
        rollout = _back(rollout, manifests)
    strange: list[Problem] = []

    def usable(placed: Placed | None) -> Placed | None:
        if placed is None or placed.package not in manifests:
            return None
        theirs = manifests[placed.package].signature
        if rollout.stable and not same_requests(
            theirs, manifests[rollout.stable.package].signature
        ):
            strange.append(_other_inputs(held.line, placed.package))
            return None
        return placed

    possible = replace(
        rollout,
        canary=usable(rollout.canary),
        shadow=usable(rollout.shadow),
        previous=rollout.previous if rollout.previous in manifests else None,
    )
    packages = needed(possible)
    placement = Placement(
        line=held.line,
        rollout=possible,
        models={package: models[package] for package in packages if package in models},
        failed={**failed, **{problem.where: problem.what for problem in strange}},
        asleep=frozenset(packages) - models.keys(),
    )
    return placement, tuple(strange)


def _without(held: Placement, failed: Mapping[str, str]) -> Placement:
    """Return what is served already, less what must not be served any more."""
    now = held.rollout
    return replace(
        held,
        failed=failed,
        rollout=replace(
            now,
            canary=None if now.canary and now.canary.package in failed else now.canary,
            shadow=None if now.shadow and now.shadow.package in failed else now.shadow,
        ),
        models={p: model for p, model in held.models.items() if p not in failed},
        asleep=held.asleep - failed.keys(),
    )


def _back(rollout: Rollout, manifests: Mapping[str, Manifest]) -> Rollout:
    """Return to what was stable before, until the controller says so too."""
    before = rollout.previous
    if rollout.stable is None or before not in manifests or before in rollout.condemned:
        return replace(rollout, stable=None)
    return replace(rollout, stable=replace(rollout.stable, package=str(before)), previous=None)


def _other_inputs(line: str, package: str) -> Problem:
    return Problem(
        _INCOMPATIBLE,
        "The package takes other inputs or gives other outputs than the stable one, "
        "so it cannot answer the same requests.",
        where=package,
        tries=[f"genba approve {line}", f"genba rollback {line}", "genba explain G710"],
    )
