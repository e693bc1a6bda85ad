"""What the folders and names of image files mean: classes, splits, masks.

Understood, and combined: one folder per class (good/, scratch/, ...), below train/, val/ and test/
or above them; masks in a parallel tree (masks/, ground_truth/, ...), beside the image as x_mask.png
or x_label.bmp, or with the very name of the image and another ending; classes in the names of a
flat folder (scratch_01.bmp); a flat folder of good parts only. Where no folder says what is good,
masks do: an image whose mask is black is good.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from genba.data.classes import is_good

#: Endings of image files, read or not: one that is not read is rejected rather than passed over.
SUFFIXES: Final = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".heic", ".heif")
    + (".avif", ".jp2", ".psd")
)
SPLITS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "calibrate", "calibration"), "calibrate"),
}
_MASK_FOLDERS: Final = frozenset(
    ("mask", "masks", "maskimages", "groundtruth", "gt", "label", "labels", "annotation")
    + ("annotations", "seg", "segmentation", "segmentations")
)
_NEUTRAL: Final = frozenset(("image", "images", "img", "imgs", "jpegimages", "pictures", "photos"))
_DEFECTS: Final = frozenset(
    ("bad", "defect", "defects", "defective", "anomaly", "anomalies", "abnormal", "ng", "ko")
)
_MASK_NAME: Final = re.compile(r"(.+?)[_\-. ](?:mask|gt|label|groundtruth|ground_truth|seg)", re.I)
_NUMBERED: Final = re.compile(r"([A-Za-z][A-Za-z_\- ]*?)[_\- ]?\d+")
#: Beginnings of names that say where a picture was taken, not of what.
_CAMERA: Final = frozenset(
    ("img", "image", "dsc", "dscn", "pic", "photo", "frame", "cam", "camera", "part", "sample")
    + ("scan", "left", "right", "top", "bottom", "front", "back", "side", "pano", "dcim")
)
_LEAST_NAMED: Final = 5  # images per class that is told by names
_MOSTLY: Final = 0.9
_PRODUCTS: Final = 50  # images per folder from which on a folder is a product, not a series

GOOD: Final = "good"
DEFECT: Final = "defect"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An image and what its place says about it; paths are relative to the folder."""

    name: str
    label: str | None = None
    split: str | None = None
    mask: str | None = None
    entity: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arranged:
    """The images of a folder, sorted by name, and how they were found to be laid out."""

    entries: tuple[Entry, ...]
    layout: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """The folders an image lies in, by meaning."""

    above: tuple[str, ...]  # above the folder of the split
    split: str | None
    below: tuple[str, ...]  # below it, or all of them where there is none


def arrange(names: Sequence[str], is_mask: Callable[[str], bool | None]) -> Arranged:
    """Find out what the folders and names of image files mean.

    Args:
        names: Paths relative to the folder, with forward slashes.
        is_mask: Looks at a file: true where it is a mask that marks something, false where it
            is one that marks nothing, None where it is a picture of something.

    Example:
        >>> names = ["train/good/0.png", "test/dent/0.png", "ground_truth/dent/0_mask.png"]
        >>> found = arrange(names, lambda name: None)
        >>> [(e.split, e.label, e.mask) for e in found.entries]
        [('test', 'dent', 'ground_truth/dent/0_mask.png'), ('train', 'good', None)]
    """
    images, masks, how = _apart(sorted(names), is_mask)
    skip = _shared(images)
    places = {name: _place(_folders(name)[skip:]) for name in images}
    entries = [_entry(name, places[name]) for name in images]
    entries = _with_masks(entries, masks)
    entries, told = _labelled(entries, is_mask)
    split = "train and test folders, " if any(e.split for e in entries) else ""
    beside = f", masks {how}" if any(e.mask for e in entries) else ""
    return Arranged(entries=tuple(entries), layout=f"{split}{told}{beside}")


def _folders(name: str) -> list[str]:
    """Return the folders of a file that mean something."""
    return [f for f in PurePosixPath(name).parts[:-1] if _plain(f) not in _NEUTRAL]


def _plain(folder: str) -> str:
    return re.sub(r"[^a-z0-9]", "", folder.lower())


def _apart(
    names: Sequence[str], is_mask: Callable[[str], bool | None]
) -> tuple[list[str], list[str], str]:
    """Tell images from masks, and say where the masks are."""
    tree = [n for n in names if any(_plain(f) in _MASK_FOLDERS for f in _folders(n))]
    if tree and len(tree) < len(names):
        aside = set(tree)
        return [n for n in names if n not in aside], tree, "in folders of their own"
    present = {_key(name) for name in names}
    named = [(name, _MASK_NAME.fullmatch(_stem(name))) for name in names]
    beside = [name for name, found in named if found and _key(name, found[1]) in present]
    if beside:
        aside = set(beside)
        return [n for n in names if n not in aside], beside, "beside the images"
    twins = _twins(names, is_mask)
    aside = set(twins)
    return [n for n in names if n not in aside], twins, "beside the images, by the same names"


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _key(name: str, stem: str | None = None) -> tuple[str, str]:
    return str(PurePosixPath(name).parent), (_stem(name) if stem is None else stem).lower()


def _twins(names: Sequence[str], is_mask: Callable[[str], bool | None]) -> list[str]:
    """Return masks that have the name of their image and another ending."""
    by_key: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        by_key[_key(name)].append(name)
    pairs = [sorted(pair, key=_is_photo) for pair in by_key.values() if len(pair) == 2]
    looked = [is_mask(pair[0]) for pair in pairs[: _LEAST_NAMED * 2]]
    if not pairs or len(pairs) < len(by_key) / 4 or None in looked:
        return []
    return [pair[0] for pair in pairs]


def _is_photo(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg")


def _shared(images: Sequence[str]) -> int:
    """Return how many folders every image lies in that say nothing about it."""
    skip = 0
    while True:
        deeper = [_folders(name)[skip:] for name in images]
        if not deeper or min(map(len, deeper)) < 2:
            return skip
        firsts = {folders[0] for folders in deeper}
        if len(firsts) > 1 or _plain(min(firsts)) in SPLITS or is_good(min(firsts)):
            return skip
        skip += 1


def _place(folders: Sequence[str]) -> _Place:
    for at, folder in enumerate(folders):
        if _plain(folder) in SPLITS:
            return _Place(
                above=tuple(folders[:at]),
                split=SPLITS[_plain(folder)],
                below=tuple(folders[at + 1 :]),
            )
    return _Place(above=(), split=None, below=tuple(folders))


def _entry(name: str, place: _Place) -> Entry:
    label, entity = None, None
    if place.below:
        general = _plain(place.below[0]) in _DEFECTS and len(place.below) > 1
        label = place.below[1] if general else place.below[0]
        entity = place.above[0] if place.above else None
    elif place.above:
        label = place.above[-1]
    return Entry(name=name, label=label, split=place.split, entity=entity)


def _with_masks(entries: list[Entry], masks: Sequence[str]) -> list[Entry]:
    """Give each image its mask: by folders and name, without the split, or by name alone."""
    if not masks:
        return entries
    keys: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    order = sorted(range(len(entries)), key=lambda at: entries[at].split != "test")
    for at in order:
        for key in _keys(entries[at].name, _stem(entries[at].name)):
            keys[key].append(at)
    found = list(entries)
    for mask in masks:
        named = _MASK_NAME.fullmatch(_stem(mask))
        stems = [_stem(mask), *([named[1]] if named else [])]
        for key in [key for stem in stems for key in _keys(mask, stem)]:
            owners = keys.get(key, [])
            if owners and (len(key) > 1 or len(owners) == 1):  # a bare name must be the only one
                found[owners[0]] = replace(found[owners[0]], mask=mask)
                break
    return found


def _keys(name: str, stem: str) -> list[tuple[str, ...]]:
    """Return by what an image and its mask know each other, the surest first."""
    folders = [_plain(f) for f in _folders(name) if _plain(f) not in _MASK_FOLDERS]
    without = [f for f in folders if f not in SPLITS]
    low = stem.lower()
    return [("whole", *folders, low), ("class", *without, low), (low,)]


def _labelled(
    entries: list[Entry], is_mask: Callable[[str], bool | None]
) -> tuple[list[Entry], str]:
    """Settle the classes where folders do not, and say by what they are told."""
    labels = {entry.label for entry in entries}
    masked = sum(entry.mask is not None for entry in entries)
    if labels == {None}:
        if masked:
            return _by_mask(entries, is_mask), "classes by masks: good where nothing is marked"
        return _by_name(entries)
    told = "one folder per class"
    if any(label and is_good(label) for label in labels) or masked < _MOSTLY * len(entries):
        return entries, told
    marked = _by_mask(entries, is_mask)
    of: defaultdict[str | None, set[str | None]] = defaultdict(set)
    for entry, by_mask in zip(entries, marked, strict=True):
        of[entry.label].add(by_mask.label)
    if all(len(kinds) == 1 for kinds in of.values()):
        good = {label for label, kinds in of.items() if kinds == {GOOD}}
        named = [replace(e, label=GOOD) if e.label in good else e for e in entries]
        return named, f"{told}, good where nothing is marked"
    return _in_series(entries, marked), "classes by masks: good where nothing is marked"


def _by_mask(entries: list[Entry], is_mask: Callable[[str], bool | None]) -> list[Entry]:
    return [
        replace(e, label=GOOD if e.mask is None or is_mask(e.mask) is False else DEFECT)
        for e in entries
    ]


def _in_series(entries: list[Entry], marked: list[Entry]) -> list[Entry]:
    """Keep folders that are no classes: small ones belong together, large ones are products."""
    sizes = Counter(entry.label for entry in entries)
    large = min(sizes.values()) >= _PRODUCTS
    return [
        replace(new, entity=old.label) if large else replace(new, group=old.label)
        for old, new in zip(entries, marked, strict=True)
    ]


def _by_name(entries: list[Entry]) -> tuple[list[Entry], str]:
    """Tell classes by the beginnings of names, if every image has one; else all are good."""
    words = []
    for entry in entries:
        found = _NUMBERED.fullmatch(_stem(entry.name))
        words.append(found[1].strip("_- ") if found else "")
    counts = Counter(words)
    clear = all(word and word.lower() not in _CAMERA for word in counts)
    if len(counts) > 1 and clear and min(counts.values()) >= _LEAST_NAMED:
        named = [replace(e, label=word) for e, word in zip(entries, words, strict=True)]
        return named, "classes in the names of the files"
    return [replace(e, label=GOOD) for e in entries], "no classes: every image is taken for good"
