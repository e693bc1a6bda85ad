"""Ten trivial tasks in one Prefect flow, with its own temporary server; prints seconds as JSON."""

import json
import time

from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.testing.utilities import prefect_test_harness


@task(cache_policy=INPUTS, persist_result=True)
def step(number: int, after: int) -> int:
    """Return the number of the step, which follows another."""
    return max(number, after)


@flow
def ten() -> int:
    """Ten tasks in a chain."""
    last = -1
    for number in range(10):
        last = step(number, last)
    return last


def main() -> None:
    """Run the flow twice; the second run finds the cached results."""
    seconds = []
    with prefect_test_harness(server_startup_timeout=180):
        for _ in range(2):
            start = time.perf_counter()
            ten()
            seconds.append(time.perf_counter() - start)
    print(json.dumps({"cold_s": seconds[0], "again_s": seconds[1]}))


if __name__ == "__main__":
    main()
