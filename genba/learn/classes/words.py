"""Classes as people say them, and how what they say judges an answer."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.learn.classes.answers import ABSTAINS

_NEW: Final = "new:"


def label(correction: str, classes: Sequence[str] = ()) -> float:
    """Turn what a person said into the label of a sample: the number of its class.

    Upper case, hyphens and underscores do not count. `new:NAME` is the class behind the last one:
    it exists from the next training on.

    Raises:
        Problem: G801 when no class has that name.

    Example:
        >>> classes = ("T-shirt", "Ankle boot")
        >>> label("ankle_boot", classes), label("new:hat", classes), label("new:t shirt", classes)
        (1.0, 2.0, 0.0)
    """
    wanted = correction.strip()
    new = wanted.lower().startswith(_NEW)
    word = _word(wanted[len(_NEW) :] if new else wanted)
    names = [_word(name) for name in classes]
    if word and word in names:
        return float(names.index(word))
    if word and new:
        return float(len(classes))
    near = nearest(word, names)
    like = classes[names.index(near)] if near else ""
    raise Problem(
        "G801",
        f"{correction!r} is no class of this line" + (f"; did you mean {like}?" if like else "."),
        why=f"Classes: {', '.join(classes) or 'none'}. A new one begins with {_NEW}.",
        tries=[*([like] if like else classes[:2]), f"{_NEW}{word}" if word else f"{_NEW}NAME"],
    )


def outcome(answer: Any, label: float) -> str:
    """Say how a label judges an answer; where the model abstained there is nothing to judge.

    Example:
        >>> outcome(2, 2.0), outcome(2, 0.0), outcome(-1, 2.0)
        ('confirmed', 'wrong', '')
    """
    if answer is None or int(answer) == ABSTAINS or not np.isfinite(label):
        return ""
    return "confirmed" if int(answer) == int(label) else "wrong"


def _word(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
