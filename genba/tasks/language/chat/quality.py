"""How near a written answer is to the right one: word by word, whatever the model."""

import re
import string
from collections import Counter
from typing import Final

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation + "“”‘’„…–—")


def normalised(text: str) -> str:
    """Return a text without case, punctuation, articles and spare room.

    Rajpurkar et al., "SQuAD: 100,000+ questions", EMNLP 2016: as their evaluation does it.

    Example:
        >>> normalised("The  valve, of course!")
        'valve of course'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(answer: str, right: str) -> bool:
    """Say whether two answers are the same but for case, punctuation and articles.

    Example:
        >>> exact("Close the valve.", "close valve")
        True
    """
    return normalised(answer) == normalised(right)


def fuzzy(answer: str, right: str) -> float:
    """Return the F1 of the words of an answer, 0 to 1 (Rajpurkar et al. 2016).

    Example:
        >>> fuzzy("Close both valves", "close the valves now"), fuzzy("", "")
        (0.6666666666666666, 1.0)
    """
    said, wanted = Counter(normalised(answer).split()), Counter(normalised(right).split())
    if not said or not wanted:
        return float(said == wanted)
    common = sum((said & wanted).values())
    return 2.0 * common / (sum(said.values()) + sum(wanted.values()))
