"""Ways to spread a graph over the cores of a machine."""

from typing import Final

#: Threads of one run that are worth trying.
WAYS: Final = (1, 2, 4, 8)
#: Forms in 8-bit integers that any runtime of graphs takes, the usual one first.
FORMS: Final = (
    *("int8", "int8-percentile", "int8-tensor", "int8-s8s8", "int8-thin", "int8-dynamic"),
)


def spreads(cores: int) -> list[tuple[int, int]]:
    """Return pairs of threads per run and runs that fit the cores, the fewest threads first.

    Besides a single thread, each fills the cores: with as many runs as there are cores, with one
    run, or in between.

    Example:
        >>> spreads(1), spreads(2), spreads(8)
        ([(1, 1)], [(1, 1), (1, 2), (2, 1)], [(1, 1), (1, 8), (2, 4), (4, 2), (8, 1)])
    """
    full = [(threads, cores // threads) for threads in WAYS if threads <= cores]
    return list(dict.fromkeys([(1, 1), *full]))
