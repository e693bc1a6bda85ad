"""Episodes from rows of the test set, with faults put into them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from genba.core.protocols import Array, Predict, Tensors, View
from genba.core.task import Task
from genba.core.values import Manifest
from genba.edge.safety.plan import SafetyPlan
from genba.learn.safety.series import Floats
from genba.stages.assurance_episodes import EPOCH_MS, Episode, beat_ms
from genba.stages.assurance_faults import Columns, Fault, Place, delay_of
from genba.stages.assurance_rows import (
    Decision,
    Gathered,
    Outputs,
    Sensors,
    answered,
    stretch,
)

WARM: Final = 16  # readings before the onset, for the envelope to have seen some
LASTS: Final = 24  # readings of a fault
_SEED: Final = 20_240_701
_MOST_ROWS: Final = 400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """A stretch of consecutive rows of one entity, whole at its onset."""

    columns: Columns
    entity: int
    rows: Array  # ids of the rows that are told
    onset: int  # position in the columns
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """Samples of stretches, one stretch after the other, and what the model answers."""

    tensors: Sequence[Tensors]
    outputs: Sequence[Outputs]


class Tables:
    """Makes the episodes of a line of sensors.

    Args:
        task: Turns rows into samples.
        predict: The package.
        manifest: Of the package.
        sensors: Of the line.
        plan: Knows rate and history.
        spread: Of each sensor, on training rows.
    """

    def __init__(
        self, task: Task, predict: Predict, manifest: Manifest, sensors: Sensors, spread: Floats,
        plan: SafetyPlan,
    ) -> None:  # fmt: skip
        self.task, self.predict, self.manifest = task, predict, manifest
        self.sensors, self.spread, self.plan = sensors, spread, plan
        settings = manifest.settings
        self.context = int(settings.get("context") or 0)
        self.ahead = int(settings.get("ahead") or 0)
        self.stretches: list[Stretch] = []
        self.clean = Told(tensors=[], outputs=[])
        self.usual: list[list[frozenset[str]]] = []  # trips of each stretch without a fault

    def choose(self, view: View, test: Gathered, decision: Decision, count: int) -> None:
        """Choose stretches: half with an alarm of the clean model in them, where there are any.

        A fault that hides alarms shows only where there are some; they are rare.
        """
        columns = _columns(view, self.sensors)
        onsets = self._onsets(columns)
        raised = dict(zip(test.row.tolist(), decision.raised(test.outputs).tolist(), strict=True))
        alarm = np.array([raised.get(int(r), False) for r in columns["row"]], dtype=np.int64)
        ahead = np.concatenate([[0], np.cumsum(alarm)])
        with_alarm = onsets[ahead[np.minimum(onsets + LASTS, len(alarm))] > ahead[onsets]]
        chosen = np.concatenate([_spread(with_alarm, count // 2), np.zeros(0, dtype=np.int64)])
        rest = _spread(np.setdiff1d(onsets, with_alarm), count - len(chosen))
        for number, onset in enumerate(np.sort(np.concatenate([chosen, rest])).tolist()):
            first = max(0, onset - WARM - self.context)
            taken = slice(first, onset + LASTS + self.ahead)
            self.stretches.append(
                Stretch(
                    columns=stretch(columns, taken),
                    entity=int(columns["entity"][onset]),
                    rows=columns["row"][onset - WARM : onset + LASTS],
                    onset=onset - first,
                    seed=_SEED + number,
                )
            )
        self.clean = self.told([s.columns for s in self.stretches])
        whole = [i for i, t in enumerate(self.clean.outputs) if _length(t) == WARM + LASTS]
        self.stretches = [self.stretches[i] for i in whole]
        self.clean = Told(
            tensors=[self.clean.tensors[i] for i in whole],
            outputs=[self.clean.outputs[i] for i in whole],
        )

    def told(self, changed: Sequence[Columns]) -> Told:
        """Turn changed stretches into samples and ask the model about all of them at once."""
        tensors = []
        for one, columns in zip(self.stretches, changed, strict=True):
            samples = self.task.samples(columns, self.manifest.settings)
            at = np.flatnonzero(np.isin(samples.row, one.rows))
            tensors.append({name: t[at] for name, t in samples.tensors.items()})
        return Told(tensors=tensors, outputs=ask(self.predict, tensors))

    def cell(self, fault: Fault, sensor: str = "") -> Iterator[Episode]:
        """Yield the episodes of one cell of the matrix."""
        assert fault.change is not None
        changed = []
        for one in self.stretches:
            columns = {name: column.copy() for name, column in one.columns.items()}
            place = Place(
                sensors=self.sensors.names,
                sensor=sensor,
                onset=one.onset,
                spread=self.spread,
                chance=np.random.default_rng(one.seed),
            )
            fault.change(columns, place)
            changed.append(columns)
        told = self.told(changed)
        for i in range(len(self.stretches)):
            yield self.episode(i, told.tensors[i], told.outputs[i])

    def episode(self, i: int, tensors: Tensors, outputs: Outputs) -> Episode:
        """Return a stretch as it arrives: in time, one reading after the other."""
        one = self.stretches[i]
        if self.plan.timing.ordered:
            time = np.asarray(one.columns["time"], dtype=np.int64)[
                one.onset - WARM : one.onset + LASTS
            ]
        else:
            time = EPOCH_MS + beat_ms(self.plan) * np.arange(WARM + LASTS, dtype=np.int64)
        names = self.manifest.entities
        return Episode(
            tensors=tensors,
            outputs=outputs,
            clean=self.clean.outputs[i],
            time_ms=time,
            now_ms=time.copy(),
            entity=names[one.entity] if one.entity < len(names) else "",
            onset=WARM,
            usual=self.usual[i] if self.usual else (),
        )

    def plain(self) -> Iterator[Episode]:
        """Yield the stretches without a fault."""
        for i in range(len(self.stretches)):
            yield self.episode(i, self.clean.tensors[i], self.clean.outputs[i])

    def power_loss(self) -> Iterator[Episode]:
        """Yield stretches in which the device has forgotten the readings before the onset."""
        changed = []
        for one in self.stretches:
            columns = {name: column.copy() for name, column in one.columns.items()}
            for name in self.sensors.names:
                columns[name][: one.onset] = np.nan
            changed.append(columns)
        told = self.told(changed)
        for i, episode in enumerate(self.plain()):
            after = {
                name: np.concatenate([episode.outputs[name][:WARM], told.outputs[i][name][WARM:]])
                for name in episode.outputs
            }
            tensors = {
                name: np.concatenate([episode.tensors[name][:WARM], told.tensors[i][name][WARM:]])
                for name in episode.tensors
            }
            yield replace(episode, tensors=tensors, outputs=after, restart=True)

    def _onsets(self, columns: Columns) -> Array:
        """Return positions that begin a stretch without a gap, whole where it begins."""
        count = len(columns["row"])
        values = np.stack([columns[name] for name in self.sensors.names], axis=1)
        whole = np.isfinite(values).all(axis=1)
        low = np.array([c.low for c in self.plan.channels])
        high = np.array([c.high for c in self.plan.channels])
        with np.errstate(invalid="ignore"):
            whole &= ((values >= low) & (values <= high)).all(axis=1)
        broken = np.ones(count, dtype=np.int64)
        broken[1:] = columns["entity"][1:] != columns["entity"][:-1]
        step = self.plan.timing.step_ms
        if step:
            broken[1:] |= np.abs(np.diff(columns["time"]) - step) * 2 > step
        gaps = np.concatenate([[0], np.cumsum(broken)])
        back = max(WARM, min(self.context, 4 * WARM))
        onsets = np.arange(back, max(back, count - LASTS - self.ahead))
        straight = gaps[onsets + LASTS] == gaps[onsets - back + 1]
        found: Array = onsets[straight & whole[onsets] & whole[onsets - 1]]
        return found


def late(episode: Episode, chance: np.random.Generator) -> Episode:
    """Return an episode in which readings from the onset on are older ones, honestly stamped."""
    behind = delay_of(chance)
    at = np.arange(len(episode.now_ms))
    shown = np.where(at >= episode.onset, np.maximum(at - behind, 0), at)
    return replace(
        episode,
        tensors={name: t[shown] for name, t in episode.tensors.items()},
        outputs={name: o[shown] for name, o in episode.outputs.items()},
        time_ms=episode.time_ms[shown],
    )


def silent(episode: Episode) -> Episode:
    """Return an episode in which nothing arrives any more from the onset on."""
    return replace(episode, arrives=np.arange(len(episode.now_ms)) < episode.onset)


def gone_bad(episode: Episode, outputs: Mapping[str, Array], broken: tuple[str, ...]) -> Episode:
    """Return an episode whose model answers otherwise from the onset on."""
    mixed = {
        name: np.concatenate([kept[: episode.onset], outputs[name][episode.onset :]])
        for name, kept in episode.outputs.items()
    }
    return replace(episode, outputs=mixed, broken=broken)


def ask(predict: Predict, tensors: Sequence[Tensors]) -> list[Outputs]:
    """Return the answers to several batches, asked as one."""
    if not tensors:
        return []
    joined = {name: np.concatenate([t[name] for t in tensors]) for name in tensors[0]}
    outputs = answered(predict, joined)
    ends = np.cumsum([_length(t) for t in tensors])
    starts = np.concatenate([[0], ends[:-1]])
    return [
        {name: o[a:b] for name, o in outputs.items()}
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _columns(view: View, sensors: Sensors) -> Columns:
    names = ("entity", "time", "row", "label")
    parts: list[Columns] = []
    count = 0
    for chunk in view.chunks("test"):
        parts.append({name: np.asarray(chunk[name]) for name in chunk})
        count += len(chunk["row"])
        if count >= _MOST_ROWS:
            break
    made = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    for name in set(made) - set(names):
        made[name] = made[name].astype(np.float64) if name in sensors.names else made[name]
    return made


def _spread(positions: Array, count: int) -> Array:
    if len(positions) <= count:
        return np.asarray(positions, dtype=np.int64)
    at = np.unique(np.linspace(0, len(positions) - 1, count).astype(np.int64))
    return np.asarray(positions)[at]


def _length(tensors: Mapping[str, Array]) -> int:
    return len(next(iter(tensors.values()), ()))
