"""Ten trivial ops in one Dagster job, in process; prints seconds as JSON."""

import json
import tempfile
import time

from dagster import DagsterInstance, In, Nothing, OpDefinition, job, op


def _op(number: int) -> OpDefinition:
    @op(name=f"step_{number}", ins={"after": In(Nothing)} if number else {})
    def step() -> int:
        return number

    return step


OPS = [_op(number) for number in range(10)]


@job
def ten() -> None:
    """Ten ops in a chain."""
    last = OPS[0]()
    for step in OPS[1:]:
        last = step(after=last)


def main() -> None:
    """Run the job twice on one instance; Dagster keeps no result to reuse for plain ops."""
    with tempfile.TemporaryDirectory() as home:
        instance = DagsterInstance.local_temp(home)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            assert ten.execute_in_process(instance=instance).success
            seconds.append(time.perf_counter() - start)
    print(json.dumps({"cold_s": seconds[0], "again_s": seconds[1]}))


if __name__ == "__main__":
    main()
