"""The fault matrix: every fault in every place, with and without the envelope, with its bound."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.line import Line
from genba.learn.proportion import wilson
from genba.learn.safety.bounds import upper_bound
from genba.stages.assurance_episodes import Episode, Outcome, Trial
from genba.stages.assurance_faults import (
    MODEL_FAULTS,
    SENSOR_FAULTS,
    WAY_FAULTS,
    Fault,
)
from genba.stages.assurance_images import IMAGE_FAULTS, PIXEL_FAULTS
from genba.stages.assurance_limits import accepted, limit_of
from genba.stages.assurance_model import constant, inverted
from genba.stages.assurance_pictures import Pictures
from genba.stages.assurance_rows import Outputs
from genba.stages.assurance_tables import Tables, ask, gone_bad, late, silent

Tell = Callable[[str, float, float], None]
Plain = Callable[[], Iterable[Episode]]
_SEED: Final = 20_240_703


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One fault in one place."""

    name: str
    fault: Fault
    episodes: Plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Bad:
    """A model that has gone bad.

    Args:
        predictor: The garbled model; None where there is none.
        broken: What a known case says of each bad model; "" where it would not notice.
        roles: Of the outputs, by name.
    """

    predictor: Any
    broken: Mapping[str, tuple[str, ...]]
    roles: Mapping[str, str]


def table_cells(tables: Tables, bad: Bad) -> list[Cell]:
    """Return the cells of a line of sensors."""
    names = tables.sensors.names
    found = []
    for fault in SENSOR_FAULTS:
        if len(names) < fault.fewest:
            continue
        for sensor in names if fault.each else ("",):
            cell = f"{fault.name}:{sensor}" if sensor else fault.name
            found.append(Cell(name=cell, fault=fault, episodes=_bound(tables.cell, fault, sensor)))
    wrong = Wrong(
        bad=bad,
        plain=tables.plain,
        garbled=lambda: ask(bad.predictor.predict, [e.tensors for e in tables.plain()]),
    )
    return [*found, *_others(tables.plain, tables.power_loss, wrong)]


def image_cells(pictures: Pictures, bad: Bad) -> list[Cell]:
    """Return the cells of a line of images."""
    ways: dict[str, Plain] = {
        "cut_file": pictures.files_cut,
        "wrong_size": pictures.files_narrow,
        "stale_frame": pictures.stale,
    }
    found = [
        Cell(
            name=fault.name,
            fault=fault,
            episodes=_bound(pictures.pixels, fault.name)
            if fault.name in PIXEL_FAULTS
            else ways[fault.name],
        )
        for fault in IMAGE_FAULTS
    ]
    wrong = Wrong(
        bad=bad, plain=pictures.plain, garbled=lambda: pictures.bad(bad.predictor.predict)
    )
    return [*found, *_others(pictures.plain, pictures.power_loss, wrong)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """Episodes and what each bad model makes of them."""

    bad: Bad
    plain: Plain
    garbled: Callable[[], list[Outputs]]

    def episodes(self, kind: str) -> Iterator[Episode]:
        """Yield the episodes in which the model goes bad in this way."""
        name = kind.partition(":")[2]
        broken = self.bad.broken.get(name, ())
        garbled = self.garbled() if name == "garbled" else []
        for i, episode in enumerate(self.plain()):
            if name == "garbled":
                said = garbled[i]
            elif name == "constant":
                said = constant(episode.outputs, episode.onset)
            else:
                said = inverted(episode.outputs, self.bad.roles)
            yield gone_bad(episode, said, broken)


def judged(cells: Iterable[Cell], trial: Trial, line: Line, tell: Tell) -> list[dict[str, Any]]:
    """Run every cell and hold it against its limit.

    Returns:
        For each cell: how many episodes failed with and without the envelope, the upper end of the
        one-sided 95 % interval (Clopper and Pearson, 1934; with none of n failed about 3 / n), the
        limit, whether it holds, how soon it was noticed and by which layers.
    """
    known, found = list(cells), []
    for number, cell in enumerate(known):
        tell(f"fault {cell.name}", number, len(known))
        outcomes = [trial.run(episode) for episode in cell.episodes()]
        found.append(_cell(cell, outcomes, line))
    return found


def _others(plain: Plain, power_loss: Plain, wrong: Wrong) -> list[Cell]:
    ways: dict[str, Plain] = {
        "delay": lambda: (late(e, np.random.default_rng(_SEED + i)) for i, e in enumerate(plain())),
        "drop": lambda: (silent(e) for e in plain()),
        "power_loss": power_loss,
    }
    found = [Cell(name=f.name, fault=f, episodes=ways[f.name]) for f in WAY_FAULTS]
    for fault in MODEL_FAULTS:
        if fault.name.endswith("garbled") and wrong.bad.predictor is None:
            continue
        found.append(
            Cell(name=fault.name, fault=fault, episodes=_bound(wrong.episodes, fault.name))
        )
    return found


def _cell(cell: Cell, outcomes: list[Outcome], line: Line) -> dict[str, Any]:
    count = len(outcomes)
    failed = sum(o.failed for o in outcomes)
    without = sum(o.failed_without for o in outcomes)
    limit = limit_of(line, cell.name, cell.fault.severity)
    upper = upper_bound(failed, count)
    noticed = [o.noticed_after for o in outcomes if o.noticed_after is not None]
    by_rule = sum(o.by_rule for o in outcomes)
    layers: dict[str, int] = {}
    for outcome in outcomes:
        for layer in outcome.layers:
            layers[layer] = layers.get(layer, 0) + 1
    return {
        "cell": cell.name,
        "about": cell.fault.about,
        "severity": cell.fault.severity,
        "episodes": count,
        "failed_without": without,
        "rate_without": _rate(without, count),
        "interval_without": [round(v, 4) for v in wilson(without / count, count)]
        if count
        else None,
        "failed": failed,
        "missed": sum(o.missed for o in outcomes),
        "raised": sum(o.raised for o in outcomes),
        "rate": _rate(failed, count),
        "upper": round(upper, 4),
        "limit": limit,
        "holds": bool(count) and upper <= limit,
        "accepted": accepted(line, cell.name),
        "noticed": _rate(len(noticed), count),
        "noticed_after": float(np.median(noticed)) if noticed else None,
        "held": _rate(sum(o.held for o in outcomes), sum(o.readings for o in outcomes)),
        "stood_in": by_rule,
        "stood_in_wrong": sum(o.by_rule_wrong for o in outcomes),
        "layers": dict(sorted(layers.items(), key=lambda item: -item[1])),
    }


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _bound(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)
