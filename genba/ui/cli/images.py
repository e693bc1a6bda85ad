"""A line guessed from images: what folders are called, or what a manifest says is on them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

from genba.catalog import GUESSED_TASKS
from genba.core.line import Data, Line, Retrain, RollBackOn, Rollout
from genba.core.resolve import resolve
from genba.data.classes import is_good, ordered
from genba.data.sources.imagefiles import Wanted, from_folder
from genba.data.sources.imagelayout import SUFFIXES
from genba.ui.cli.listed import Listed

_FILES: Final = "files:"
_SLOW_MS: Final = 500.0  # an image takes tens of milliseconds, on a small machine a few hundred
_DECIDE_AFTER: Final = 200  # images; there are fewer of them than of readings


def is_images(source: str) -> bool:
    """Say whether a source is a folder with images in it, or below it."""
    return bool(_names(source))


def propose_images(name: str, source: str, task: str | None) -> tuple[Line, dict[str, str], int]:
    """Guess a line from a folder of images.

    Args:
        name: Of the line.
        source: `files:FOLDER`.
        task: What it is for; guessed if None: inspection where some parts are called good, or
            where there is one class only, else classification.

    Returns:
        The line, the reason of each guess by the dotted path of the setting, and how many images.
    """
    found, layout = from_folder(_folder(source), _names(source))
    classes = Counter(wanted.entry.label for wanted in found if wanted.entry.label)
    reasons = {"data.source": f"guessed: {layout}; {_masks(found)}"}
    line, told = _proposed(name, Data(source=source), classes, task)
    return line, told | reasons, len(found)


def propose_manifest(
    name: str, source: str, found: Listed, task: str | None
) -> tuple[Line, dict[str, str]]:
    """Guess a line from a table that names image files; as `propose_images`."""
    data = Data(
        source=source, image=found.image, mask=found.mask, label=found.label, time=found.time
    )
    line, told = _proposed(name, data, found.classes, task)
    return line, told | found.reasons


def _proposed(
    name: str, data: Data, classes: Counter[str], task: str | None
) -> tuple[Line, dict[str, str]]:
    kind = _kind(classes)
    chosen = task or GUESSED_TASKS[kind]
    retrain = Retrain(when={"drift": 0.2, "labels": 20})
    rollout = Rollout(decide_after=_DECIDE_AFTER, roll_back_on=RollBackOn(latency_ms_p99=_SLOW_MS))
    line = Line(name=name, task=chosen, data=data, rollout=rollout, retrain=retrain)
    told = ", ".join(f"{n} {label}" for label, n in classes.most_common(8)) or "no classes"
    reasons = {
        "task": f"asked for; {told}" if task else f"guessed: {kind}; {told}",
        "gates": "the line stops here, not in production; set what you need",
        "retrain": "when to train a challenger: drift (PSI), new labels",
    }
    suggested: Line = resolve("task", chosen).suggest(line, ordered(classes))
    return replace(suggested, data=line.data), reasons


def _kind(classes: Counter[str]) -> str:
    return "good parts" if len(classes) < 2 or any(map(is_good, classes)) else "images"


def _masks(found: list[Wanted]) -> str:
    count = sum(1 for wanted in found if wanted.entry.mask)
    return f"{count} masks" if count else "no masks"


def _folder(source: str) -> Path:
    return Path(source.removeprefix(_FILES)).expanduser()


def _names(source: str) -> list[str]:
    """Return the image files below a folder, relative to it."""
    root = _folder(source)
    if not source.startswith(_FILES) or not root.is_dir():
        return []
    return [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
