"""`genba-edge trust` and `genba-edge revoke`: whose releases a device takes."""

import argparse
from pathlib import Path
from typing import ClassVar

from genba.core.problem import Problem
from genba.edge.cli.answer import Said, fact
from genba.edge.trust import Trust, add_key, revoke_key


class TrustKey:
    """Trust a public key, or list those that are trusted."""

    help: ClassVar[str] = "Trust a factory's public key, or list the keys of this device."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add the key."""
        parser.add_argument("key", type=Path, nargs="?", metavar="KEY.pem", help="a public key")
        parser.add_argument("--fingerprint", help="what it must be, as the factory printed it")

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Add the key.

        Raises:
            Problem: As `genba.edge.trust.add_key`; G672 when it has another fingerprint.
        """
        if given.key is None:
            return listed(given.state)
        name = add_key(given.state, _read(given.key), expect=given.fingerprint)
        return Said(
            data={"key": name, "state": str(given.state)},
            lines=(f"✓ the key {name[:16]}… is trusted here", "", fact("fingerprint", name)),
            next=("genba-edge verify DIR",),
        )


class RevokeKey:
    """Never trust a key again."""

    help: ClassVar[str] = "Never accept again what a key has signed."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add the key."""
        parser.add_argument("key", metavar="FINGERPRINT", help="of the key; 16 digits are enough")

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Revoke the key.

        Raises:
            Problem: As `genba.edge.trust.revoke_key`.
        """
        name = revoke_key(given.state, given.key)
        left = len(Trust.at(given.state).usable)
        return Said(
            data={"key": name, "state": str(given.state), "left": left},
            lines=(
                f"✓ the key {name[:16]}… is revoked here",
                "",
                fact("fingerprint", name),
                fact("still trusted", f"{left} keys"),
            ),
            next=("genba-edge trust NEW.pem",) if not left else ("genba-edge trust",),
        )


def listed(state: Path) -> Said:
    """Return the keys of a device."""
    trust = Trust.at(state)
    lines = [fact("trusted", key) for key in trust.usable]
    lines += [fact("revoked", key) for key in sorted(trust.revoked)]
    return Said(
        data={"trusted": list(trust.usable), "revoked": sorted(trust.revoked)},
        lines=lines or ["No key is trusted here yet."],
        next=() if trust.usable else ("genba-edge trust KEY.pem",),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Problem(
            "G672",
            f"{path} cannot be read: {error.strerror}.",
            where=str(path),
            tries=["genba-edge trust edge-key.pub.pem", "genba explain G672"],
        ) from error
