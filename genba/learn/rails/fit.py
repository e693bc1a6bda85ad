"""Training of the classifier: a ridge on what a text means and how it is spelt, in closed form.

The threshold is the split-conformal quantile of leave-one-out scores of harmless prompts, which a
ridge has without being trained again (Allen, "The relationship between variable selection and data
augmentation", Technometrics 1974): a new harmless prompt is blocked with at most the stated rate,
if it is like those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.edge.rails.classifier import Embed, features
from genba.edge.rails.letters import plain
from genba.learn.conformal import quantile_threshold
from genba.learn.rails.prompts import Prompt, generated, manuals, prompts

Floats = npt.NDArray[np.float64]
_PER_CALL: Final = 32  # texts that are embedded together


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How the classifier is trained."""

    phrases: int = 2_000  # generated attacks, and as many harmless ones
    false_blocks: float = 0.01  # of harmless prompts
    penalty: float = 1.0  # of the ridge
    own: float = 4.0  # weight of a prompt somebody wrote, relative to a generated one
    seed: int = 0


SETTINGS: Final = Settings()


def fit(
    embed: Embed | None, own: Sequence[str] = (), settings: Settings = SETTINGS
) -> dict[str, Array]:
    """Train on the prompts that are not held out.

    Args:
        embed: Sentence encoder of the package; None: the spelling alone.
        own: Questions of the line, which are harmless: the training part of its data. The
            threshold then keeps its promise for what this line is asked.
        settings: How.

    Returns:
        `weights` [F] and `threshold` [1], float32, as `genba.edge.rails.Classifier` takes them.
    """
    written = [p for p in prompts() if not p.held_out and not p.code]
    made = [
        p
        for attack in (True, False)
        for p in generated(settings.phrases, attack=attack, seed=settings.seed)
    ]
    written += manuals()
    mine = [Prompt(text=t, attack=False, kind="own", language="", family="") for t in own]
    rows = [*written, *mine, *made]
    attack = np.array([p.attack for p in rows])
    seen = _features([plain(p.text) for p in rows], embed)
    weight = np.where(np.arange(len(rows)) < len(written), settings.own, 1.0)
    for side in (attack, ~attack):
        weight[side] *= len(rows) / 2 / weight[side].sum()
    weights, left_out = ridge(seen, np.where(attack, 1.0, -1.0), weight, settings.penalty)
    real = ~attack & (np.arange(len(rows)) < len(written) + len(mine))
    threshold = quantile_threshold(left_out[real], settings.false_blocks).value
    return {
        "weights": weights.astype(np.float32),
        "threshold": np.array([threshold], dtype=np.float32),
    }


def ridge(seen: Floats, truth: Floats, weight: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Solve a weighted ridge by its dual, since there are fewer rows than features.

    Args:
        seen: Features [N, F].
        truth: What they should give [N].
        weight: Of each row [N].
        penalty: How much large weights cost.

    Returns:
        Weights [F], and for each row what the weights of all other rows give for it [N].

    Example:
        >>> seen = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
        >>> weights, others = ridge(seen, np.array([0.0, 1.0, 2.0]), np.ones(3), 1e-9)
        >>> weights.round(3).tolist(), others.round(3).tolist()
        ([1.0, 0.0], [0.0, 1.0, 2.0])
    """
    root = np.sqrt(weight)
    scaled = seen * root[:, None]
    inverse = np.linalg.inv(scaled @ scaled.T + penalty * np.eye(len(seen)))
    dual = inverse @ (root * truth)
    left_out = (root * truth - dual / np.diag(inverse)) / root
    return scaled.T @ dual, left_out


def _features(texts: Sequence[str], embed: Embed | None) -> Floats:
    """Return the features of texts, texts of like length embedded together."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    parts = [
        features([texts[n] for n in order[at : at + _PER_CALL]], embed)
        for at in range(0, len(order), _PER_CALL)
    ]
    found = np.concatenate(parts).astype(np.float64)
    back = np.empty_like(found)
    back[order] = found
    return back
