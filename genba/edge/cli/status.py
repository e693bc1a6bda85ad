"""`genba-edge status`: what this device runs, what is on trial, and what comes next."""

import argparse
import time
from typing import Any, ClassVar

from genba.core.codec import encode
from genba.edge.agent.observed import read_counts
from genba.edge.agent.rules import Tally
from genba.edge.agent.states import due
from genba.edge.agent.values import Install, State
from genba.edge.cli.agent import open_agent
from genba.edge.cli.answer import Said, fact

_CHANGES = 8  # that are shown


class Status:
    """Show what the agent knows; nothing is changed and nobody is asked."""

    help: ClassVar[str] = "Show what this device runs, what is on trial and what comes next."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add nothing: it is about this device."""

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Read the state.

        Raises:
            Problem: G687 when this device is not enrolled, or its state is damaged.
        """
        agent = open_agent(given)
        recorded = agent.record.read()
        state, counts = recorded.state, read_counts(agent.folder)
        data: dict[str, Any] = {
            "device": agent.enrolment.device,
            "state": encode(state),
            "due": due(state),
            "counts": encode(counts),
            "changes": encode(recorded.changes),
            "clock_behind_ms": agent.time.behind_ms(),
        }
        lines = [f"{agent.enrolment.device} runs {state.line}", ""]
        lines += [fact(role, _described(getattr(state, role))) for role in _ROLES]
        if counts.candidate is not None and counts.candidate.is_of(state.candidate):
            lines.append(fact("trial", _counted(counts.candidate.tally, state)))
        if state.offer is not None:
            here = "here" if state.offer.fetched else "being fetched"
            lines.append(fact("offer", f"release {state.offer.release}, {here}"))
        lines += [fact("refused", f"release {r.release}: {r.reason}") for r in state.refused[-3:]]
        if note := agent.time.note():
            lines.append(fact("clock", note))
        lines.append("")
        lines += [fact(_moment(c.time_ms), c.what) for c in recorded.changes[-_CHANGES:]]
        return Said(data=data, lines=lines, next=next_of(state))


_ROLES = ("active", "candidate", "previous")


def _described(install: Install | None) -> str:
    if install is None:
        return "none"
    by = f", confirmed by {install.confirmed_by}" if install.confirmed_by else ""
    watch = ", being watched" if install.phase == "active" and not install.settled else ""
    since = _moment(install.since_ms)
    return f"release {install.release}, {install.phase} since {since}{by}{watch}"


def _counted(tally: Tally, state: State) -> str:
    assert state.candidate is not None
    plan, canary = state.candidate.plan, state.candidate.phase == "canary"
    needed = plan.canary_answers if canary else plan.shadow_answers
    return (
        f"{tally.answers} of {needed} answers, {tally.disagreed} decisions differ, "
        f"{tally.abstained} abstained, {tally.failed} failed, {tally.trips} trips"
    )


def next_of(state: State) -> tuple[str, ...]:
    """Return what to type next."""
    candidate = state.candidate
    waits = candidate is not None and candidate.phase in ("tested", "shadow")
    if candidate is None or not waits or candidate.confirmed_by:
        return ("genba-edge update",)
    number = candidate.release
    return (f"genba-edge confirm {number}", f"genba-edge confirm {number} --refuse")


def _moment(time_ms: int) -> str:
    return time.strftime("%m-%d %H:%M", time.gmtime(time_ms / 1e3))
