"""What rails allow, as plain data, and what they say when they block."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

from genba.core.codec import decode, encode
from genba.core.problem import Problem
from genba.edge.rails.letters import letters

_CANARY: Final = 16
What = Literal["block", "mask", "allow"]

#: The rails, for people; `by` of an answer that one closed on is "rail:" and its name.
RAILS: Final = {
    "size": "too long, or nothing was said",
    "hidden": "characters that people do not see",
    "forged": "marks that begin or end a message in a model's own template",
    "personal": "personal data",
    "topic": "a phrase that the line does not talk about",
    "injection": "an instruction against those of the line, found by a rule",
    "attack": "looks like an attack to the classifier",
    "leak": "part of the instructions of the line",
    "schema": "not the JSON that the line promises",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What a line lets in and out."""

    characters_in: int = 8_000  # of all messages of people together
    characters_out: int = 32_000
    personal_in: What = "mask"
    personal_out: What = "mask"  # but what was asked, cited or instructed may be repeated
    injection: bool = True  # the rules
    attack: bool = True  # the classifier, where the package has one
    never: tuple[str, ...] = ()  # phrases that end a conversation, asked or answered
    known: tuple[str, ...] = ()  # texts whose personal data may be told: contacts of the house
    leak_letters: int = 48  # as many of the instructions in a row do not go out
    canary: str = ""  # see `genba.edge.rails.canary`
    schema: str = ""  # JSON schema that every answer follows

    def __post_init__(self) -> None:
        for name in ("characters_in", "characters_out", "leak_letters"):
            if not getattr(self, name) > 0:
                raise _wrong(f"{name} must be above 0.", f"leave {name} out")
        for name in ("personal_in", "personal_out"):
            if getattr(self, name) not in get_args(What):
                raise _wrong(f"{name} is one of {', '.join(get_args(What))}.", f'{name} = "mask"')
        if self.canary and (len(self.canary) < _CANARY or letters(self.canary) != self.canary):
            raise _wrong(
                f"A canary is {_CANARY} small letters or digits and more.", "leave canary out"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Policy":
        """Read a policy as it is kept in a package or written in a line.

        Raises:
            Problem: G102 and G103 for a name or a type that is none, G660 for an impossible value.

        Example:
            >>> Policy.of({"never": ["prices"], "personal_in": "block"}).never
            ('prices',)
        """
        return decode(cls, values, where="rails")

    def json(self) -> dict[str, Any]:
        """Return the policy as it is kept in a package."""
        return dict(encode(self))


def _wrong(what: str, *tries: str) -> Problem:
    return Problem(
        "G660",
        what,
        where="rails",
        why=f"Known settings: {', '.join(f.name for f in fields(Policy))}.",
        tries=tries,
    )
