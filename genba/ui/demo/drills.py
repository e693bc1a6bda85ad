"""Drills: a package that misbehaves on purpose goes into production; who notices, and how fast?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from genba.core.codec import decode, encode
from genba.core.rollout import Action
from genba.core.values import EngineChoice, Manifest
from genba.edge.package import encode_manifest
from genba.stages.deploy import deploy
from genba.store.home import Store
from genba.store.signatures import sign_package
from genba.ui.demo.replay import HOUR_MS, Answered, Player
from genba.ui.demo.story import Story

_INTO_PRODUCTION: Final[tuple[Action, ...]] = ("shadow", "promote")


@dataclass(frozen=True, kw_only=True, slots=True)
class Drill:
    """One injected fault and what the factory made of it."""

    name: str
    injected: str
    package: str
    rolled_back: bool
    bad_answers: int
    seconds: float | None  # from the first bad answer to the last one
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the drill as plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def misbehaving(store: Store, package: str, fault: Mapping[str, Any]) -> str:
    """Make a twin of a package whose engine misbehaves after a while; return its id.

    The model, its gates and its files are those of the original. Only the engine differs: the
    catalog's "faulty" wraps the real one.
    """
    manifest = decode(Manifest, store.ledger.get("package", package))
    engine = {"engine": manifest.engine.name, "settings": dict(manifest.engine.settings), **fault}
    twin = replace(manifest, engine=EngineChoice(name="faulty", settings=engine))
    twin_id = store.blobs.put(encode_manifest(twin))
    origin = [("twin of", package)]
    store.ledger.record("package", twin_id, encode(twin), line=manifest.line, inputs=origin)
    sign_package(store, manifest.line, twin_id)
    return twin_id


def drill(
    name: str, fault: Mapping[str, Any], *, store: Store, story: Story, player: Player, line: str
) -> Drill:
    """Put a misbehaving twin of the stable package into production and go on sending traffic.

    Args:
        name: What the drill is called in the report.
        fault: Settings of the faulty engine.
        store: The store of the demonstration.
        story: Follows the ledger.
        player: Sends the traffic.
        line: Name of the line.
    """
    stable = story.stable()
    injected = ", ".join(f"{key} {value}" for key, value in fault.items())
    twin = misbehaving(store, stable, fault)
    with store.transaction():  # at once, so that nobody judges it on the way
        for action in _INTO_PRODUCTION:
            deploy(store, line, action, twin, reason=f"drill: {name}", by="genba demo")
    since, first = story.seq, len(player.answers)
    ended = None
    for _ in player.days():
        story.read(player.date)
        ended = ended or story.find(
            "deploy", after=since, having=lambda e: e.body["action"] == "roll_back"
        )
        if ended and player.answers[-1].package == stable:
            break
        if len(player.answers) - first > 40_000:
            break
    bad = [a for a in player.answers[first:] if a.package == twin and is_bad(a, fault)]
    player.play(HOUR_MS)
    return Drill(
        name=name,
        injected=injected,
        package=twin,
        rolled_back=ended is not None,
        bad_answers=len(bad),
        seconds=(bad[-1].at_ms - bad[0].at_ms) / 1000 if bad else None,
        reason=str(ended.body["reason"]) if ended else "not rolled back while the drill lasted",
    )


def is_bad(answer: Answered, fault: Mapping[str, Any]) -> bool:
    """Say whether an answer shows the injected fault."""
    return not answer.is_number or answer.latency_ms >= float(fault.get("delay_ms") or 1e9)
