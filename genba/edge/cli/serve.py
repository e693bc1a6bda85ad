"""`genba-edge serve`: answer the readings of the machines that a link file names."""

import argparse
import secrets
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from genba.core.io import make_dirs_durable
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.edge.agent import enrolment
from genba.edge.agent.record import FOLDER
from genba.edge.buffer import Buffer
from genba.edge.cli.answer import Said, fact
from genba.edge.clocks import Clock, SystemClock
from genba.edge.interface import Interface
from genba.edge.links import Around, Link
from genba.edge.links.fitting import fit
from genba.edge.links.settings import Links, load_links, reads, writes
from genba.edge.memory import Memory
from genba.edge.release import Release, open_release
from genba.edge.service import Parts, Service
from genba.edge.service_health import HEALTH_FILE, Counts, Health
from genba.edge.service_model import Guarded, ReleaseModel
from genba.edge.service_seat import SeatModel
from genba.edge.trust import Trust

_BUFFER: Final = "buffer.db"
_MIB: Final = 1 << 20
_CHECK_S: Final = 5.0
_DRAIN_S: Final = 5.0
_SHARES: Final = 1 << 16


class Serve:
    """Serve a release: readings in, answers out."""

    help: ClassVar[str] = (
        "Answer the readings of the machines that a link file names, until it is told to stop."
    )

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add what says which release, which links and which buffer."""
        parser.add_argument(
            "folder",
            type=Path,
            nargs="?",
            metavar="DIR",
            help="what `genba export edge` wrote; by default what the agent has in service",
        )
        parser.add_argument("--line", help="refuse a release of any other line")
        parser.add_argument("--links", type=Path, required=True, help="the link file")
        parser.add_argument("--buffer", type=Path, help="the file that answers wait in")
        parser.add_argument(
            "--check", action="store_true", help="say what comes from where and try the connections"
        )
        parser.add_argument(
            "--readings", type=int, help="stop by itself after so many readings, for drills"
        )
        parser.add_argument(
            "--time-scale", type=float, default=1.0, help="how much faster time goes, for drills"
        )
        parser.add_argument(
            "--time-from", type=int, help="when scaled time began, ms since 1970 UTC, for drills"
        )

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Serve until SIGTERM or SIGINT, or until the readings are done.

        Raises:
            Problem: As `open_release`, `load_links`, `fit`; G690 when there can be no buffer.
        """
        if not given.time_scale > 0:
            raise Problem(
                "G110",
                f"--time-scale {given.time_scale:g} makes no time.",
                where="--time-scale",
                tries=["--time-scale 60"],
            )
        clock = SystemClock(given.time_scale, given.time_from)
        model, release = _model(given, clock)
        links, notes = fit(load_links(given.links), release.interface)
        around = Around(
            clock=clock,
            line=release.interface.line,
            share=secrets.randbelow(_SHARES) / _SHARES,
        )
        opened = _opened(links, around)
        if given.check:
            model.close()
            return _checked(links, opened, (*release.notes, *notes), given)
        for note in (*release.notes, *notes):
            sys.stderr.write(f"note: {note}\n")
        counts = _serve(given, Loaded(model, release, links, opened), clock)
        return _said(counts, release.interface, opened, given)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was opened."""

    model: Any
    release: Release
    links: Links
    opened: Mapping[str, Link]


def _model(given: argparse.Namespace, clock: Clock) -> tuple[Any, Release]:
    """Open the release that is named, or else what the agent has in service."""
    make_dirs_durable(given.state)
    if given.folder is None:
        line = given.line or enrolment.read(given.state).line
        model = SeatModel((given.state, line), clock, _wall_ms, _log)
        if model.first is None:
            raise AssertionError("a seat without a release")
        return model, model.first
    release = open_release(
        given.folder, Trust.at(given.state), Memory.at(given.state), _wall_ms(), line=given.line
    )
    return ReleaseModel(Guarded(release, clock, _log)), release


def _wall_ms() -> int:
    """Return the time of this world, by which signatures end, however fast a drill goes."""
    return time.time_ns() // 1_000_000


def _serve(given: argparse.Namespace, loaded: Loaded, clock: Clock) -> Counts:
    release, links = loaded.release, loaded.links
    path = given.buffer or given.state / _BUFFER
    with Buffer(
        path,
        days=links.buffer.days,
        most_bytes=int(links.buffer.most_mib * _MIB),
        clock=clock,
    ) as buffer:
        service = Service(
            Parts(
                manifest=release.package.manifest,
                interface=release.interface,
                model=loaded.model,
                links=links,
                opened=loaded.opened,
                buffer=buffer,
                clock=clock,
                health=Health(given.state / HEALTH_FILE, release.interface.line),
                factory=(given.state / FOLDER / enrolment.FILE).is_file(),
            )
        )
        before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, lambda *_: service.stop.set())
        try:
            return service.run(most=given.readings, drain_s=_DRAIN_S)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _opened(links: Links, around: Around) -> dict[str, Link]:
    return {
        name: resolve("link", links.kinds[name])(settings, around)
        for name, settings in links.links.items()
    }


def _log(entry: Mapping[str, Any]) -> None:
    who, left_out = entry.get("entity"), entry.get("left_out")
    more = f" ({left_out} more since the last line)" if left_out else ""
    of = f" of {who}" if who else ""
    sys.stderr.write(f"envelope: {entry.get('cause')}{of}: {entry.get('detail')}{more}\n")


def _checked(
    links: Links, opened: Mapping[str, Link], notes: tuple[str, ...], given: argparse.Namespace
) -> Said:
    """Try the connections for some seconds; say what comes from where."""
    stop = threading.Event()
    seen: dict[str, Any] = {}

    def listen(name: str) -> None:
        for reading in opened[name].readings(stop):
            seen.setdefault(name, reading)

    reading = [name for name, link in links.links.items() if reads(link)]
    threads = [threading.Thread(target=listen, args=(name,), daemon=True) for name in reading]
    for thread in threads:
        thread.start()
    until = time.monotonic() + _CHECK_S
    while time.monotonic() < until and len(seen) < len(reading):
        time.sleep(0.05)
    stop.set()
    lines, found = [], {}
    for name, link in opened.items():
        uses = [
            w
            for w, is_so in (("reads", name in reading), ("answers", writes(links.links[name])))
            if is_so
        ]
        standing = link.standing
        tried = name in reading
        how = "connected" if standing.connected else standing.detail if tried else "not tried"
        lines.append(fact(name, f"{links.kinds[name]}, {' and '.join(uses)}: {how}"))
        one = seen.get(name)
        if one is not None:
            what = (
                "an image"
                if one.image is not None
                else ", ".join(
                    f"{k} {'missing' if v is None else f'{v:.6g}'}" for k, v in one.values.items()
                )
            )
            lines.append(fact("", f"{one.entity or 'no entity'}: {what}"))
        found[name] = {"kind": links.kinds[name], "connected": standing.connected, "detail": how}
    for link in opened.values():
        link.close()
    for thread in threads:
        thread.join(timeout=_CHECK_S)
    good = all(found[name]["connected"] for name in reading)
    mark = (
        "✓ every link that is read answers"
        if good
        else "✗ a link that is to be read does not answer"
    )
    lines += [fact("note", note) for note in notes]
    next_ = _command(given)
    return Said(
        data={"links": found, "notes": list(notes), "ok": good},
        lines=(mark, "", *lines),
        next=(next_ if good else f"{next_} --check",),
        exit_code=0 if good else 1,
    )


def _said(
    counts: Counts, interface: Interface, opened: Mapping[str, Link], given: argparse.Namespace
) -> Said:
    answers = ", ".join(f"{n:,} by {who}" for who, n in sorted(counts.answers.items())) or "none"
    published = {name: link.standing.published for name, link in opened.items()}
    return Said(
        data={
            "line": interface.line,
            "readings": counts.readings,
            "duplicates": counts.duplicates,
            "answers": counts.answers,
            "samples": counts.samples,
            "held": counts.refused,
            "lost": counts.lost,
            "published": published,
        },
        lines=(
            f"✓ {interface.line} was served",
            "",
            fact("readings", f"{counts.readings:,}, {counts.duplicates:,} of them twice"),
            fact("answers", answers),
            fact("published", ", ".join(f"{n} {k:,}" for n, k in published.items())),
            fact("samples", f"{counts.samples:,} for labelling"),
            *(
                [fact("lost", f"{counts.lost:,} answers: the disk took nothing for too long")]
                if counts.lost
                else []
            ),
        ),
        next=(_command(given),),
    )


def _command(given: argparse.Namespace) -> str:
    words = ["genba-edge serve", str(given.folder or ""), f"--links {given.links}"]
    words += [f"--buffer {given.buffer}"] if given.buffer else []
    return " ".join(word for word in words if word)
