"""What this benchmark may use of the machine."""

import os


def cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))
