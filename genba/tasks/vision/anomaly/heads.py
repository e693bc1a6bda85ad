"""Heads from a stream of feature maps, in memory that does not grow with the stream."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.learn.coreset import Reservoir, k_centres
from genba.learn.gaussians import Moments
from genba.tasks.vision.anomaly import patches, schema

Floats = npt.NDArray[np.float32]
Trial = Mapping[str, Any]

#: Settings by candidate, the default first. What the defaults rest on is in
#: benchmarks/vision/quality.md: Gaussians of the patch's own place, drawn only weakly towards the
#: others, led on aligned parts and on most textures alike.
SPACE: Final[dict[str, dict[str, list[Any]]]] = {
    "gaussian": {
        "taps": ["8 16", "8 16 32", "4 8 16"],
        "dims": [100],
        "reach": [0, 1, -1],
        "strength": [0.06, 0.5],
        "top": [0.01, 0.0],
    },
    "nearest": {
        "taps": ["8 16", "8 16 32"],
        "dims": [152],
        "bank": [2000],
        "top": [0.01, 0.0],
    },
    "filters-gaussian": {
        "taps": ["4 8 16", "8 16"],
        "dims": [100],
        "reach": [0, 1],
        "strength": [0.06],
        "top": [0.01, 0.0],
    },
}
_SMOOTH: Final = 1.0  # cells of the map, of its blur
_RESERVOIR: Final = 20_000  # patches that a coreset is chosen from
_WHITE: Final = 0.01  # share of the mean variance below which a direction is not blown up
_FEWEST_DIMS: Final = 16
_MEGABYTE: Final = 1e6
_FLOAT_BYTES: Final = 4
_MEAN_BLUR: Final = 1.5  # cells of the map, over which the level of neighbours is shared
_SPREAD_BLUR: Final = 3.0
_SPREAD_FLOOR: Final = 0.3  # share of the mean spread that every cell is given
_FAINTEST: Final = 0.01  # share of the largest spread below which a component is left out
_EMBED_FLOOR: Final = 0.1  # share of the largest spread below which a component is not blown up


def taps_of(trial: Trial) -> list[str]:
    """Return the taps of a trial, the shallowest first."""
    return str(trial["settings"]["taps"]).split()


def scales_of(features: Mapping[str, Array], taps: Sequence[str]) -> list[Floats]:
    """Return the standard deviation of every channel of every tap."""
    found = []
    for name in taps:
        values = np.asarray(features[name])
        found.append(values.std(axis=(0, 2, 3), dtype=np.float64).astype(np.float32))
    return found


def build(
    trial: Trial,
    stream: Iterable[Mapping[str, Array]],
    scales: Sequence[Floats],
    settings: Mapping[str, Any],
    seed: int,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Make a head.

    Args:
        trial: Candidate and its settings.
        stream: Feature maps of good images, some at a time.
        scales: Of `scales_of`.
        settings: Of the line: working size, largest head.
        seed: Of the projection and the reservoir.

    Returns:
        Settings and arrays that `model.distances` and `model.chart_of` need; levels are those of
        `levels`, and `limit` and `pixel_threshold` are 1 until calibrated.
    """
    chosen, taps = trial["settings"], taps_of(trial)
    size = int(settings["size"])
    grid = size // max(8, min(int(t) for t in taps))
    gaussian = not trial["candidate"].startswith("nearest")
    places = 1 if chosen.get("reach") == -1 or not gaussian else grid * grid
    dims = _dims(int(chosen["dims"]), places if gaussian else 0, float(settings["head_limit_mb"]))
    projected = patches.projection(scales, dims, seed)
    arrays: dict[str, Array] = {f"project.{n}": p for n, p in zip(taps, projected, strict=True)}
    arrays |= {f"gather.{n}": patches.gather(grid, -(-size // int(n))) for n in taps}
    dims = projected[0].shape[1]
    if gaussian:
        whole = _gaussian(stream, arrays, taps, Moments((grid, grid), dims), chosen)
    else:
        whole = _nearest(stream, arrays, taps, int(chosen["bank"]), seed)
    cells = size // schema.CELL
    arrays["spread"] = patches.spread(cells, grid, _SMOOTH)
    arrays |= {"level.mean": np.zeros((cells, cells), dtype=np.float32)}
    arrays |= {"level.gain": np.ones((cells, cells), dtype=np.float32), **_embedding(whole)}
    made = {
        **settings,
        "head": "gaussian" if gaussian else "nearest",
        "taps": taps,
        "grid": grid,
        "top": float(chosen["top"]),
        "limit": 1.0,
        "pixel_threshold": 1.0,
        "learned_from": len(whole),
        "head_mb": sum(a.nbytes for a in arrays.values()) / _MEGABYTE,
    }
    return made, arrays


def levels(charts: Floats) -> dict[str, Array]:
    """Return what `model.levelled` needs, from maps of good parts that the head has not seen.

    Args:
        charts: Smoothed, not levelled [images, cells, cells].
    """
    near, wide = (patches.blur(charts.shape[1], s) for s in (_MEAN_BLUR, _SPREAD_BLUR))
    mean = near @ charts.mean(axis=0, dtype=np.float64) @ near.T
    spread = wide @ charts.std(axis=0, dtype=np.float64) @ wide.T
    gain = 1.0 / (spread + _SPREAD_FLOOR * spread.mean() + 1e-9)
    return {"level.mean": mean.astype(np.float32), "level.gain": gain.astype(np.float32)}


def _gaussian(
    stream: Iterable[Mapping[str, Array]],
    arrays: dict[str, Array],
    taps: Sequence[str],
    moments: Moments,
    chosen: Mapping[str, Any],
) -> Floats:
    """Add mean and whitening to the arrays; return the mean vector of every image."""
    whole = []
    for part in stream:
        vectors = patches.vectors(part, arrays, taps)
        moments.add(vectors)
        whole.append(vectors.mean(axis=1))
    arrays["mean"], arrays["whiten"] = moments.whitening(
        reach=int(chosen["reach"]), strength=float(chosen["strength"]) * moments.dims
    )
    return np.concatenate(whole)


def _nearest(
    stream: Iterable[Mapping[str, Array]],
    arrays: dict[str, Array],
    taps: Sequence[str],
    bank: int,
    seed: int,
) -> Floats:
    """Add mean and bank to the arrays; return the mean vector of every image.

    Vectors are whitened first, which found more defects on most sets tried; as all of this is
    linear, the whitening goes into the projection and costs nothing.
    """
    kept, whole = Reservoir(_RESERVOIR, seed), []
    for part in stream:
        vectors = patches.vectors(part, arrays, taps)
        kept.add(vectors.reshape(-1, vectors.shape[2]))
        whole.append(vectors.mean(axis=1))
    mean = kept.vectors.mean(axis=0, dtype=np.float64)
    white = _whitening(kept.vectors - mean.astype(np.float32))
    for name in taps:
        arrays[f"project.{name}"] = (arrays[f"project.{name}"] @ white).astype(np.float32)
    arrays["mean"] = (mean @ white).astype(np.float32)
    vectors = ((kept.vectors - mean) @ white).astype(np.float32)
    arrays["bank"] = vectors[k_centres(vectors, bank, seed)]
    return (np.concatenate(whole) @ white).astype(np.float32)


def _whitening(centred: Floats) -> npt.NDArray[np.float64]:
    """Return the matrix after which all directions vary alike, the faintest ones less."""
    covariance = centred.T.astype(np.float64) @ centred / len(centred)
    variance, direction = np.linalg.eigh(covariance)
    variance = np.maximum(variance, 0.0)
    return np.asarray(direction / np.sqrt(variance + _WHITE * variance.mean() + 1e-12))


def _embedding(whole: Floats) -> dict[str, Array]:
    """Return the map from the mean vector of an image to 64 numbers: principal components."""
    mean = whole.mean(axis=0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(whole - mean, full_matrices=False)
    kept = min(schema.EMBEDDING, int((spread > _FAINTEST * spread[0]).sum()))
    deviation = spread[:kept] / np.sqrt(max(1, len(whole) - 1))
    floor = _EMBED_FLOOR * float(spread[0]) / np.sqrt(max(1, len(whole) - 1)) + 1e-12
    matrix = np.zeros((whole.shape[1], schema.EMBEDDING), dtype=np.float32)
    matrix[:, :kept] = directions[:kept].T / (deviation + floor)
    return {"embed.mean": mean.astype(np.float32), "embed.map": matrix}


def _dims(wanted: int, places: int, limit_mb: float) -> int:
    """Return so many dimensions that the whitening matrices stay within the limit."""
    if not places:
        return wanted
    most = int(np.sqrt(0.9 * limit_mb * _MEGABYTE / (_FLOAT_BYTES * places)))
    return max(_FEWEST_DIMS, min(wanted, most))
