"""One thread for linear algebra and trees: additions then have one order, and results one value."""

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS and OpenMP use one thread each.

    Example:
        >>> with one_thread():
        ...     pass
    """
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits
