"""`genba-edge self-test`: whether a release answers here as it did where it was made, in time."""

import argparse
from typing import ClassVar

from genba.core.codec import encode
from genba.edge.cli.answer import Said, fact
from genba.edge.cli.opening import add_release, opened
from genba.edge.cli.verify import described


class SelfTest:
    """Repeat the recorded answers and measure how long one takes."""

    help: ClassVar[str] = "Repeat the recorded answers of a release and time them on this device."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add the release."""
        add_release(parser)

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Test it, and remember that it passed.

        Raises:
            Problem: As `genba.edge.release.open_release` and `Release.tested`.
        """
        release = opened(given)
        release.tested(again=True).engine.close()
        passed = release.passed_here()
        if passed is None:  # the processor was exchanged while it ran
            raise AssertionError("a passed self-test was not remembered")
        deadline = release.statement.deadline_ms
        limit = f"deadline {deadline:g} ms" if deadline is not None else "no deadline"
        return Said(
            data={**described(release), "self_test": encode(passed), "deadline_ms": deadline},
            lines=(
                f"✓ release {release.statement.release} of {release.statement.line} "
                "answers here as it did where it was made",
                "",
                fact("difference", f"{passed.difference:.2g} (relative, largest)"),
                fact("p50", f"{passed.latency_ms_p50:.3g} ms (measured)"),
                fact("p99", f"{passed.latency_ms_p99:.3g} ms (measured), {limit}"),
                *(fact("note", note) for note in release.notes),
            ),
            next=(f"genba-edge predict {given.folder} --sample",),
        )
