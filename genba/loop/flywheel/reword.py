"""Questions in other words, by rules: what a replay asks where no customer has asked yet.

The rules are those by which people who want the same write differently: greetings, other openings,
key words only, no capitals, slips of the keyboard. They make no new meaning, so the approved answer
still answers. A replay by rules is easier than people: whoever reads a proof with it is told so.
"""

import re
from collections.abc import Callable
from typing import Final

import numpy as np

_BEFORE: Final = ("Hi, ", "Hello! ", "Quick question: ", "Good morning. ", "I was wondering: ")
_BEHIND: Final = ("", "", " Thanks!", " Thank you in advance.", " Please let me know.")
#: How a question may begin instead.
_OPENINGS: Final = (
    (r"^how do i ", ("what do I have to do to ", "how can I ", "what is the way to ")),
    (r"^how can i ", ("how do I ", "what is the best way to ")),
    (r"^what is (?:a|an|the) ", ("can you explain what is meant by ", "tell me about the ")),
    (r"^what is ", ("can you explain ", "tell me what is ")),
    (r"^what are ", ("can you list ", "tell me ")),
    (r"^how long ", ("in what time ", "how much time: how long ")),
    (r"^how much ", ("what amount, how much ", "roughly how much ")),
    (r"^what does (.+) cost", (r"how much is \1", r"what is the price of \1")),
    (r"^do i need ", ("is it necessary to have ", "am I required to have ")),
    (r"^can i ", ("am I allowed to ", "is it possible to ", "may I ")),
    (r"^does ", ("I want to know: does ", "can you tell me, does ")),
    (r"^who ", ("which person or company, who ", "do you know who ")),
)
_STOP: Final = frozenset(
    {
        "a",
        "an",
        "the",
        "is",
        "are",
        "do",
        "does",
        "did",
        "i",
        "my",
        "me",
        "you",
        "your",
        "of",
        "to",
        "for",
        "in",
        "on",
        "at",
        "it",
        "be",
        "can",
        "will",
        "what",
        "how",
        "when",
        "where",
        "who",
        "which",
        "why",
        "should",
        "would",
        "and",
        "or",
        "with",
    }
)
_LEAST: Final = 3  # key words that still ask something


def reworded(text: str, chance: np.random.Generator) -> str:
    """Return a question in other words.

    Args:
        text: The question.
        chance: Decides the rule and its words.

    Example:
        >>> reworded("How do I apply for a building permit?", np.random.default_rng(3))
        'How do I apply for a biulding permit?'
    """
    rule = _RULES[int(chance.integers(len(_RULES)))]
    return rule(text, chance)


def _plain(text: str, chance: np.random.Generator) -> str:  # noqa: ARG001  # all rules are alike
    return text.lower().rstrip("?!. ")


def _polite(text: str, chance: np.random.Generator) -> str:
    before = _BEFORE[int(chance.integers(len(_BEFORE)))]
    return f"{before}{text[:1].lower()}{text[1:]}{_BEHIND[int(chance.integers(len(_BEHIND)))]}"


def _opening(text: str, chance: np.random.Generator) -> str:
    for pattern, instead in _OPENINGS:
        if re.search(pattern, text, re.IGNORECASE):
            chosen = instead[int(chance.integers(len(instead)))]
            changed = re.sub(pattern, chosen, text, count=1, flags=re.IGNORECASE)
            return changed[:1].upper() + changed[1:]
    return _polite(text, chance)


def _keywords(text: str, chance: np.random.Generator) -> str:
    kept = [word for word in re.findall(r"[\w'-]+", text.lower()) if word not in _STOP]
    return " ".join(kept) if len(kept) >= _LEAST else _plain(text, chance)


def _slip(text: str, chance: np.random.Generator) -> str:
    """Swap two letters inside a long word."""
    words = text.split()
    long = [at for at, word in enumerate(words) if len(word) > 5 and word.isalpha()]
    if not long:
        return _plain(text, chance)
    at = long[int(chance.integers(len(long)))]
    word = words[at]
    cut = int(chance.integers(1, len(word) - 2))
    words[at] = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    return " ".join(words)


def _mixed(text: str, chance: np.random.Generator) -> str:
    return _slip(_opening(text, chance), chance).lower()


_RULES: Final[tuple[Callable[[str, np.random.Generator], str], ...]] = (
    _plain,
    _polite,
    _opening,
    _keywords,
    _slip,
    _mixed,
)
