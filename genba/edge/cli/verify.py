"""`genba-edge verify`: whether a release may be used here."""

import argparse
from typing import Any, ClassVar

from genba.core.codec import encode
from genba.edge.cli.answer import Said, fact
from genba.edge.cli.opening import add_release, opened
from genba.edge.release import Release


class Verify:
    """Say whether a release is whole, signed, trusted, not older and for here."""

    help: ClassVar[str] = "Check a release: whole, signed, trusted, not expired, not older."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add the release."""
        add_release(parser)

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Open it; nothing is written, nothing is run.

        Raises:
            Problem: As `genba.edge.release.open_release`.
        """
        release = opened(given)
        return Said(
            data=described(release),
            lines=(f"✓ release {release.statement.release} is whole and trusted", *facts(release)),
            next=(f"genba-edge self-test {given.folder}",),
        )


def described(release: Release) -> dict[str, Any]:
    """Return a release as JSON."""
    passed = release.passed_here()
    return {
        "folder": str(release.folder),
        "line": release.statement.line,
        "release": release.statement.release,
        "package": release.package.id,
        "root": release.signed.root,
        "key": release.signed.fingerprint,
        "files": len(release.signed.files),
        "statement": encode(release.statement),
        "safety": release.safety is not None,
        "passed_here": encode(passed) if passed else None,
        "notes": list(release.notes),
    }


def facts(release: Release) -> list[str]:
    """Return a release as lines for people."""
    stated = release.statement
    passed = release.passed_here()
    tested = f"passed, {passed.latency_ms_p99:.3g} ms p99 (measured)" if passed else "not yet here"
    return [
        "",
        fact("line", stated.line),
        fact("package", release.package.id[:12]),
        fact("made for", f"{stated.target} ({stated.standing} there)"),
        fact("engine", stated.engine.name),
        fact("signed", f"{len(release.signed.files)} files, sha256 {release.signed.root[:16]}…"),
        fact("key", f"{release.signed.fingerprint[:16]}…"),
        fact("safety", "envelope with its fault matrix" if release.safety else "no manifest"),
        fact("self-test", tested),
        *(fact("note", note) for note in release.notes),
    ]
