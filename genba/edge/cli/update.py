"""`genba-edge update` and `genba-edge confirm`: what a person at the device decides."""

import argparse
import getpass
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.edge.agent.local import stage_folder
from genba.edge.agent.record import Change
from genba.edge.agent.runner import Agent
from genba.edge.agent.values import Confirmed, Forgiven, Rejected, State
from genba.edge.cli.agent import open_agent
from genba.edge.cli.answer import Said, fact
from genba.edge.cli.status import next_of


class Update:
    """Ask the factory now, or take a release that was brought on a stick."""

    help: ClassVar[str] = "Ask the factory for a release now, or take one from a folder."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add where it comes from."""
        parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="a release")
        parser.add_argument("--retry", type=int, metavar="N", help="try a refused release again")
        parser.add_argument("--most-mib", type=int, default=1_024, help="of one release (1024)")

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Take what is new as far as it goes without waiting.

        Raises:
            Problem: Why nothing could be taken now; what runs, runs on.
        """
        agent = open_agent(given)
        before = agent.record.read().number
        if given.retry is not None:
            agent.take(Forgiven(release=given.retry))
        if given.source is not None:
            agent.take(stage_folder(agent, given.source))
        else:
            agent.ask()
        agent.work()
        return _said(agent, before)


class Confirm:
    """Let a release on trial answer, or take one off this device."""

    help: ClassVar[str] = "Agree that a release on trial may answer, or refuse it."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add which release, and what is decided."""
        parser.add_argument("release", type=int, nargs="?", help="its number (the one on trial)")
        parser.add_argument("--refuse", action="store_true", help="take it off this device")
        parser.add_argument("--back", action="store_true", help="return to the release before")
        parser.add_argument("--because", default="", metavar="TEXT", help="why, for the record")
        parser.add_argument("--me", default="", help="who decides (your login name)")

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Record the decision, and act on it.

        Raises:
            Problem: G688 when there is nothing to decide.
        """
        agent = open_agent(given)
        before = agent.record.read().number
        state, by = agent.state, given.me or getpass.getuser()
        number = _which(given, state)
        if given.refuse or given.back:
            agent.take(Rejected(release=number, by=by, reason=given.because))
        else:
            agent.take(Confirmed(release=number, by=by))
        if agent.record.read().number == before:
            raise _nothing(f"That changes nothing: release {number} is not on trial here.")
        with suppress(Problem):  # an agent that is at work acts on it by itself
            agent.work()
        return _said(agent, before)


def _which(given: argparse.Namespace, state: State) -> int:
    if given.release is not None:
        return int(given.release)
    if given.back:
        if state.active is None or state.previous is None:
            raise _nothing("There is no release before the one in service.")
        return state.active.release
    if state.candidate is None:
        raise _nothing("No release is on trial on this device.")
    return state.candidate.release


def _nothing(what: str) -> Problem:
    return Problem("G688", what, tries=["genba-edge status", "genba-edge update"])


def _said(agent: Agent, before: int) -> Said:
    recorded = agent.record.read()
    news: list[Change] = [c for c in recorded.changes if c.number > before]
    state = recorded.state
    running = "nothing" if state.active is None else f"release {state.active.release}"
    return Said(
        data={"state": encode(state), "changes": encode(news)},
        lines=(
            f"✓ {agent.enrolment.device} runs {running} of {state.line}",
            *(fact("", change.what) for change in news),
            *(() if news else (fact("", "nothing is new"),)),
        ),
        next=next_of(state),
    )
