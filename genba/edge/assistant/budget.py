"""Time budgets of rails: what is late, or raises, counts as a refusal."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from genba.edge.assistant.seams import Block

T = TypeVar("T")

_THREADS: Final = 4  # checks at the same time; one that never ends keeps one of them


class Budget:
    """Runs checks on threads of its own, so that one that hangs holds up no answer.

    A check that is late is not waited for, but cannot be stopped either: it keeps its thread. When
    all are kept, every further check is late: nothing is said that was not checked.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="genba-rails")

    def run(self, check: Callable[[], T], seconds: float) -> T | Block:
        """Return what a check returns, or a block named "budget" or "broken".

        Args:
            check: Called on another thread.
            seconds: That it may take, its wait for a thread included.
        """
        begun = time.monotonic()
        try:
            found = self._threads.submit(check).result(seconds)
        except TimeoutError:
            return _late(seconds)
        except Exception as error:  # noqa: BLE001  # what cannot be checked is not said
            return Block(rail="broken", why=f"A rail failed: {type(error).__name__}.")
        # Code that keeps the interpreter to itself makes the timeout above fire too late.
        return found if time.monotonic() - begun <= seconds else _late(seconds)

    def close(self) -> None:
        """Take no more checks; does not wait for those that run."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _late(seconds: float) -> Block:
    return Block(rail="budget", why=f"The rails took more than {1_000 * seconds:g} ms.")
