"""Where `genba up` answers: processes on this machine, or replicas on a cluster."""

from typing import Final

from genba.core.problem import Problem
from genba.core.resolve import names, resolve
from genba.serve.process.fleet import AUTO, Fleet, count
from genba.serve.settings import Settings

_KIND: Final = "cluster"


def fleet_on(where: str, settings: Settings, processes: str) -> Fleet:
    """Return what answers.

    Args:
        where: Empty for this machine, else the name of a cluster and, behind a colon, its address.
        settings: How it serves.
        processes: How many; on a cluster, replicas.

    Raises:
        Problem: G110 for a cluster that is not known, or `auto` on one; G901 when its library is
            not installed.
    """
    if not where:
        return Fleet(settings, count(processes))
    name, _, address = where.partition(":")
    if name not in names(_KIND):
        raise Problem(
            "G110",
            f"There is no cluster {name!r} to answer on.",
            where=f"--on {where}",
            why=f"Known: {', '.join(names(_KIND))}.",
            tries=["genba up --on ray", "genba up --on ray:HOST:6379"],
        )
    if processes == AUTO:
        raise Problem(
            "G110",
            "On a cluster the number of replicas is yours to say.",
            where="--processes auto",
            tries=[f"genba up --on {where} --processes 2"],
        )
    made: Fleet = resolve(_KIND, name)(settings, count(processes), address)
    return made
