"""What answers on a device with an agent: whatever the agent put in service, and on trial."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from genba.core.problem import Problem
from genba.edge.agent.opening import open_slot
from genba.edge.agent.seat import Seat, Told
from genba.edge.agent.values import Install
from genba.edge.clocks import Clock
from genba.edge.interface import Interface
from genba.edge.release import Release
from genba.edge.safety import Sample
from genba.edge.service_model import Guarded, Publish

_ACTIVE = "active"


class SeatModel:
    """The releases of a seat.

    Args:
        place: The folder of the device, and the line that it runs.
        clock: Where the time comes from.
        wall_ms: Returns the time of this world, by which signatures end.
        log: Takes entries about trips.

    Raises:
        Problem: As `Seat`.
    """

    def __init__(
        self,
        place: tuple[Path, str],
        clock: Clock,
        wall_ms: Callable[[], int],
        log: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._state, self._line = place
        self._clock, self._wall_ms, self._log = clock, wall_ms, log
        self._opened: dict[str, Guarded] = {}  # by what is signed: releases may share a package
        self._saved: Mapping[str, Any] = {}
        self._publish: Publish | None = None
        self.first: Release | None = None
        self._seat = Seat(self._state, self._line, self._make, clock)

    def answer(self, sample: Sample, key: str) -> Told:
        """Answer a sample with the release whose turn it is."""
        return self._seat.answer(sample, key)

    def beside(self, sample: Sample, told: Told) -> Told | None:
        """Return what a release in shadow says."""
        return self._seat.beside(sample, told)

    def watch(self, publish: Publish) -> None:
        """Answer where nothing comes, now and after every change of release."""
        self._publish = publish
        for guarded in self._opened.values():
            guarded.watch(publish)

    def state(self) -> Mapping[str, Any]:
        """Return what a restart needs, by release."""
        return {name: state for name, one in self._opened.items() if (state := one.state())}

    def restore(self, body: Mapping[str, Any]) -> bool:
        """Remember what `state` told."""
        self._saved = body
        return any(one.restore(body[n]) for n, one in self._opened.items() if n in body)

    def indicators(self) -> Mapping[str, Any]:
        """Return the safety performance indicators, by release."""
        return {
            str(one.release.statement.release): one.indicators() for one in self._opened.values()
        }

    def close(self) -> None:
        """End; that is no crash."""
        with suppress(Problem):
            self._seat.close()

    def _make(self, install: Install, role: str) -> Guarded:
        release = open_slot(self._state, install, self._line, self._wall_ms())
        if self.first is None:
            self.first = release
        elif _given(release.interface) != _given(self.first.interface):
            raise Problem(
                "G691",
                f"Release {release.statement.release} takes other readings than the one before.",
                where=str(release.folder),
                why="The link file was checked against the one that was in service at the start.",
                tries=["change links.toml and start genba-edge serve again", "genba explain G691"],
            )
        guarded = Guarded(release, self._clock, self._log)
        self._opened = {root: one for root, one in self._opened.items() if not one.closed}
        self._opened[release.signed.root] = guarded
        if release.signed.root in self._saved:
            guarded.restore(self._saved[release.signed.root])
        if self._publish is not None and role == _ACTIVE:
            guarded.watch(self._publish)
        return guarded


def _given(interface: Interface) -> tuple[Any, ...]:
    """Return what of an interface a link file must agree with."""
    fields = tuple((one.name, one.unit) for one in interface.fields)
    ports = tuple((port.name, port.shape, port.fields) for port in interface.inputs)
    return fields, ports, interface.step_ms
