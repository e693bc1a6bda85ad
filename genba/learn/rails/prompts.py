"""The shipped attack set: prompts people wrote, and phrases from which any number are generated.

All of it was written for Genba; none of it is copied. Attacks are direct orders, questions for the
instructions, role plays, conversations that build up, orders hidden in documents, and all of these
in codes; what looks like them but is harmless has the same words. English and Japanese.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

import numpy as np

#: Fifths of the families that are held out.
_HELD_OUT: Final = 2
_LANGUAGES: Final = ("en", "en", "ja")  # two of three generated prompts are English


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One prompt."""

    text: str
    attack: bool
    kind: str  # direct, disclosure, roleplay, multi, document, encoded; of harmless ones a theme
    language: str  # "en" or "ja"
    family: str  # what it was made from: variants of one prompt are of one family
    code: str = ""  # how it is encoded

    @property
    def held_out(self) -> bool:
        """Whether it is for measuring only; a family is never on both sides."""
        return sha256(self.family.encode()).digest()[0] % 5 < _HELD_OUT


@lru_cache(maxsize=1)
def prompts() -> tuple[Prompt, ...]:
    """Return the prompts that people wrote, and those of them that were encoded."""
    lines = _read("prompts.jsonl").splitlines()
    return tuple(Prompt(**json.loads(line)) for line in lines)


@lru_cache(maxsize=1)
def manuals() -> tuple[Prompt, ...]:
    """Return paragraphs of documentation, which give orders to people: harmless, for training.

    They are of this project's own documentation.
    """
    return tuple(
        Prompt(text=line, attack=False, kind="manual", language="en", family="")
        for line in _read("manuals.txt").splitlines()
    )


def generated(count: int, *, attack: bool, seed: int = 0) -> list[Prompt]:
    """Return prompts made from phrases, for training only.

    Args:
        count: How many.
        attack: Whether they are attacks.
        seed: The same one makes the same prompts.

    Example:
        >>> len(generated(3, attack=True)), generated(1, attack=False)[0].attack
        (3, False)
    """
    phrases: Mapping[str, Any] = json.loads(_read("phrases.json"))["attack" if attack else "benign"]
    random = np.random.default_rng([seed, int(attack)])
    made = []
    for n in range(count):
        language = _LANGUAGES[n % len(_LANGUAGES)]
        text = _filled(phrases[language], random)
        made.append(
            Prompt(text=text, attack=attack, kind="generated", language=language, family=f"{n}")
        )
    return made


def _filled(phrases: Mapping[str, Sequence[str]], random: np.random.Generator) -> str:
    forms = phrases["forms"]
    text = forms[int(random.integers(len(forms)))]
    while "{" in text:
        head, _, rest = text.partition("{")
        slot, _, tail = rest.partition("}")
        options = phrases[slot]
        text = head + options[int(random.integers(len(options)))] + tail
    return " ".join(text.split())


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
