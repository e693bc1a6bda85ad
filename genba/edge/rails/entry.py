"""The rails of a package: what it may be asked, what it may read, what it may say."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from genba.core.talk import Words
from genba.edge.assistant.seams import Block, Checked, Embed, Question, Ruled
from genba.edge.personal import find
from genba.edge.rails.automaton import Beginnings
from genba.edge.rails.canary import secrets_of, with_canary
from genba.edge.rails.classifier import RAILS_FILE, Classifier
from genba.edge.rails.guard import Guard, Watched, masked
from genba.edge.rails.leak import beats_of
from genba.edge.rails.letters import letters
from genba.edge.rails.policy import Policy
from genba.edge.rails.readings import parts, readings
from genba.edge.rails.rules import rule
from genba.edge.rails.schema import read_schema
from genba.edge.texts import content_of

#: Marks of the chat templates of common models; a person has no reason to write one.
_FORGED: Final = re.compile(
    r"<\|(?:im_start|im_end|im_sep|system|user|assistant|endoftext|eot_id|start_header_id|"
    r"end_header_id|begin_of_text|end|return|channel|message)\|>|"
    r"</?(?:im_start|im_end|start_of_turn|end_of_turn|start_header_id|eot_id)>|"
    r"\[/?inst\]|<</?sys>>|^\s*#{2,}\s*(?:system|assistant|instruction)s?\s*:\s*$|"
    r"^\s*(?:system|assistant)\s*:\s*\S",
    re.IGNORECASE | re.MULTILINE,
)
#: Characters that nobody sees: tags, marks of direction, more than a few joiners.
_UNSEEN: Final = re.compile("[\U000e0000-\U000e007f\u202a-\u202e\u2066-\u2069]")
#: Flags of parts of a country are written with tags.
_FLAGS: Final = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{3,6}\U000e007f")
_JOINERS: Final = re.compile("[\u200b\u2060-\u2064\ufeff\u180e]")
_MOST_JOINERS: Final = 3
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_OUTSIDE: Final = ("user", "tool", "function")  # whose messages come from outside


class Rails:
    """Deterministic rails first, then a classifier, on the way in; a guard on the way out.

    May be called on several threads.

    Args:
        policy: What is allowed.
        classifier: None: the rules alone.
    """

    window: int = 64  # for callers of `after`, which cannot hold back exactly what is needed

    def __init__(self, policy: Policy, classifier: Classifier | None = None) -> None:
        self.policy = policy
        self._classifier = classifier if policy.attack else None
        self._never = Beginnings(letters(phrase) for phrase in policy.never)
        self._schema = read_schema(policy.schema) if policy.schema else None
        self._beats = beats_of(policy.canary)
        self._watched = lru_cache(maxsize=64)(self._watch)

    @classmethod
    def open(
        cls, files: Mapping[str, bytes], settings: Mapping[str, Any], embed: Embed | None
    ) -> "Rails":
        """Open the rails of a package.

        Args:
            files: Of the package; `rails.safetensors` holds the classifier.
            settings: See `Policy`.
            embed: The sentence encoder of the package, if it has one.

        Raises:
            Problem: G102, G103, G660 and G661 for the settings, G662 for the classifier.
        """
        data = files.get(RAILS_FILE)
        return cls(Policy.of(settings), None if data is None else Classifier.open(data, embed))

    def before(self, question: Question) -> Ruled:
        """Judge a question; with it go the messages as the model may see them."""
        outside = [m for m in question.messages if m.get("role") in _OUTSIDE]
        texts = [content_of(message) for message in outside]
        size = sum(map(len, texts))
        if not any(text.strip() for text in texts):
            return _blocked("size", "Nothing was asked.")
        if size > self.policy.characters_in:
            limit = self.policy.characters_in
            return _blocked("size", f"{size:,} characters; {limit:,} are read.")
        for text in texts:
            block = self._judge(text)
            if block is not None:
                return Ruled(block=block)
        return self._cleaned(question.messages)

    def passage(self, text: str) -> Block | None:
        """Judge what a document says before a model reads it; documents are data, not orders."""
        return self._dressed(text, typed=False) or self._meant(text)

    def guard(self, question: Question, known: Iterable[str] = ()) -> Guard:
        """Return what lets one answer out.

        Args:
            question: What it answers.
            known: Other texts whose personal data may be repeated, such as passages.
        """
        said = [content_of(m) for m in question.messages]
        system = "\n".join(
            content_of(m) for m in question.messages if m.get("role") in ("system", "developer")
        )
        return Guard(self._watched(system), (*said, *known))

    def after(self, text: str, question: Question, *, complete: bool) -> Checked:
        """Judge an answer, all of it; see `guard` for one that is still being written."""
        guard = self.guard(question)
        guard.take(text)
        if complete:
            guard.end()
        return Checked(block=guard.block, masks=tuple(guard.masks))

    def _watch(self, system: str) -> Watched:
        policy = self.policy
        return Watched(
            policy=policy,
            secrets=secrets_of(policy.canary, system, policy.leak_letters),
            beats=self._beats,
            never=self._never,
            schema=self._schema,
        )

    def _judge(self, text: str) -> Block | None:
        block = self._dressed(text)
        if block is not None:
            return block
        found = find(text) if self.policy.personal_in == "block" else []
        if found:
            return Block(rail="personal", why=f"The question holds personal data: {found[0].kind}.")
        if self._never.within(text):
            return Block(rail="topic", why="The question is about what the line never talks about.")
        return self._meant(text)

    def _dressed(self, text: str, *, typed: bool = True) -> Block | None:
        """Judge characters alone; pages for the web hold joiners, what a person types does not."""
        joiners = len(_JOINERS.findall(text)) if typed else 0
        unseen = _UNSEEN.search(_FLAGS.sub("", text)) or _CONTROL.search(text)
        if unseen or joiners > _MOST_JOINERS:
            return Block(rail="hidden", why="It holds characters that people do not see.")
        if _FORGED.search(text):
            return Block(rail="forged", why="It holds marks of a chat template.")
        return None

    def _meant(self, text: str) -> Block | None:
        """Judge what every reading of a text says."""
        found = readings(text)
        if self.policy.injection:
            for reading in found:
                name = rule(reading)
                if name:
                    return Block(rail="injection", why=f"It breaks the rule {name!r}.")
        if self._classifier is not None:
            scores = self._classifier.score([part for text in found for part in parts(text)])
            if float(scores.max()) > self._classifier.threshold:
                why = f"It scores {scores.max():.2f}, above {self._classifier.threshold:.2f}."
                return Block(rail="attack", why=why)
        return None

    def _cleaned(self, messages: Words) -> Ruled:
        """Return messages without personal data, and with the canary, as the policy says."""
        policy, changed, kept = self.policy, False, list(messages)
        for n, message in enumerate(messages):
            role, text = message.get("role"), content_of(message)
            new = text
            if role in _OUTSIDE and policy.personal_in == "mask":
                new = masked(text, [s for s in find(text) if not self._told(text[s.start : s.end])])
            elif role == "system" and policy.canary and policy.canary not in text:
                new = with_canary(text, policy.canary)
            if new != text:
                kept[n], changed = {**message, "content": new}, True
        return Ruled(messages=tuple(kept) if changed else None)

    def _told(self, value: str) -> bool:
        """Whether the house tells this itself, so that asking about it gives nothing away."""
        plain = letters(value)
        return any(plain in letters(text) for text in self.policy.known)


def _blocked(rail: str, why: str) -> Ruled:
    return Ruled(block=Block(rail=rail, why=why))


def blocks(rails: Rails, texts: Sequence[str]) -> list[str]:
    """Return for each text the rail that closes on it as a question, "" where none does."""
    found = []
    for text in texts:
        ruled = rails.before(Question([{"role": "user", "content": text}]))
        found.append(ruled.block.rail if ruled.block else "")
    return found
