"""Lessons about answers become training pairs, or are held back with a reason: nothing is lost.

Whoever may correct a model may also poison it: few wrong answers, repeated, are enough. So what
people say counts only where nobody contradicts it, no rail closes on it, it sends nobody to a
contact that the line never named, and nobody says too much of it. Two people who say the same
overrule the last two reasons.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from genba.core.task import Lesson
from genba.data.feedback.texts import GOOD, Spoken, of_text, spoken
from genba.edge.assistant.seams import Question
from genba.edge.personal import find
from genba.edge.rails import Policy, Rails
from genba.edge.rails.letters import letters
from genba.edge.texts import content_of, messages_of

#: Why a lesson is held back.
REASONS: Final = {
    "unasked": "no captured question belongs to it",
    "conflict": "people say different things about the same question",
    "superseded": "its author said something else about the same question later",
    "rail": "a rail closes on the answer it gives",
    "personal": "the answer it gives holds personal data",
    "contact": "one person alone names a contact that the line never named",
    "repeated": "one person alone gives one answer to many questions",
    "flood": "one person alone says more in a day than is taken",
}
_DAY_MS: Final = 86_400_000
_HOST: Final = re.compile(
    r"(?:https?://|www\.)([\w.-]+)|\b([\w-]+(?:\.[\w-]+)*\.[a-z]{2,})\b", re.I
)
_CONTACTS: Final = frozenset({"email", "phone"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question that was served, and its answer."""

    prediction: str
    messages: str  # JSON
    text: str  # the last message of the user
    answer: str  # as it was served
    time_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPair:
    """What is learned from a lesson."""

    prediction: str
    messages: str  # JSON
    text: str
    answer: str  # "" where it is only known to be bad
    rejected: str  # an answer that is worse; "" where none is known
    weight: float
    name: str  # "feedback:" and the ids of the rows of feedback


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A lesson that is not learned, and why."""

    prediction: str
    feedback: tuple[str, ...]
    reason: str  # one of REASONS
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How much one person is believed alone."""

    most_per_author: int = 50  # better answers a day
    most_thumbs: int = 500  # thumbs of one author a day
    most_per_caller: int = 2_000  # of both, of everybody who uses one key
    most_same: int = 3  # questions to which one author gives the same answer
    most_characters: int = 4_000  # of a better answer
    weight: float = 4.0  # of a better answer; what was only approved weighs 1
    known: tuple[str, ...] = ()  # texts whose contacts are the house's own: its documents


@dataclass(frozen=True, kw_only=True, slots=True)
class Vetted:
    """What is learned, and what is held back."""

    pairs: tuple[TextPair, ...]
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class _Said:
    """A lesson with what it is about."""

    lesson: Lesson
    asked: Asked
    said: Spoken
    vote: float | None  # the answer it speaks for
    group: str  # the question, however it is written


@dataclass(slots=True)
class _Desk:
    """What is known of all that was said."""

    rules: Rules
    all: list[_Said] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    def hold(self, one: _Said, reason: str, detail: str = "") -> None:
        self.held.append(
            Held(
                prediction=one.asked.prediction,
                feedback=one.lesson.feedback,
                reason=reason,
                detail=detail,
            )
        )

    def keep(self, why: Mapping[int, tuple[str, str]]) -> None:
        """Hold back those with a reason, by place; the others stay."""
        kept = []
        for n, one in enumerate(self.all):
            if n in why:
                self.hold(one, *why[n])
            else:
                kept.append(one)
        self.all = kept


def vetted(asked: Iterable[Asked], lessons: Iterable[Lesson], rules: Rules | None = None) -> Vetted:
    """Turn lessons into training pairs.

    Args:
        asked: What was served; the lessons are about some of it.
        lessons: What people agreed on (`genba.data.feedback.effective_labels`).
        rules: How much one person is believed.
    """
    desk = _Desk(rules=rules or Rules())
    by_id = {one.prediction: one for one in asked}
    for lesson in lessons:
        about = by_id.get(lesson.prediction or "")
        if about is None:
            desk.held.append(
                Held(prediction=lesson.prediction or "", feedback=lesson.feedback, reason="unasked")
            )
        else:
            desk.all.append(_said(lesson, about))
    desk.all.sort(key=lambda one: (one.asked.time_ms, one.asked.prediction))
    desk.keep(_floods(desk))
    desk.keep(_unfit(desk, [*desk.rules.known, *(one.answer for one in by_id.values())]))
    desk.keep(_repeated(desk))
    desk.keep(_superseded(desk))
    desk.keep(_conflicts(desk))
    return Vetted(pairs=tuple(_pair(one, desk.rules) for one in desk.all), held=tuple(desk.held))


def _said(lesson: Lesson, about: Asked) -> _Said:
    said = spoken(lesson.value)
    vote = (
        of_text(said.text) if said.text else of_text(about.answer) if said.kind == "good" else None
    )
    turns = [m for m in messages_of(about.messages) if m.get("role") != "system"]
    group = "\n".join(letters(content_of(turn)) for turn in turns)
    return _Said(lesson, about, said, vote, group)


def _alone(one: _Said) -> bool:
    return len(one.lesson.authors) <= 1


def _floods(desk: _Desk) -> dict[int, tuple[str, str]]:
    """Hold back all that an author, or a key, said on a day on which it is more than is taken."""
    rules = desk.rules
    authors: Counter[tuple[str, int, bool]] = Counter()
    callers: Counter[tuple[str, int]] = Counter()
    for one in desk.all:
        day = one.asked.time_ms // _DAY_MS
        for author in one.lesson.authors or ("",):
            authors[author, day, bool(one.said.text)] += 1
        for caller in {caller_of(author) for author in one.lesson.authors} or {""}:
            callers[caller, day] += 1
    found = {}
    for n, one in enumerate(desk.all):
        day, text = one.asked.time_ms // _DAY_MS, bool(one.said.text)
        author = next(iter(one.lesson.authors), "")
        most = rules.most_per_author if text else rules.most_thumbs
        if not _alone(one):
            continue
        if authors[author, day, text] > most:
            found[n] = ("flood", f"{authors[author, day, text]} in a day; {most} are taken.")
        elif callers[caller_of(author), day] > rules.most_per_caller:
            found[n] = ("flood", f"{callers[caller_of(author), day]} by one key in a day.")
    return found


def caller_of(author: str) -> str:
    """Return the key behind an author, "" where none was shown.

    Example:
        >>> caller_of("ada@k1"), caller_of("ada")
        ('k1', '')
    """
    return author.rpartition("@")[2] if "@" in author else ""


def _unfit(desk: _Desk, known: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Hold back answers that nobody should give."""
    rails = Rails(
        Policy(personal_in="allow", characters_in=desk.rules.most_characters, attack=False)
    )
    hosts = {host for text in known for host in _hosts(text)}
    told = letters("\n".join(known))
    found = {}
    for n, one in enumerate(desk.all):
        if one.said.text:
            why = _closed(rails, one.said.text) or _contact(one, hosts, told)
            if why:
                found[n] = why
    return found


def _closed(rails: Rails, text: str) -> tuple[str, str] | None:
    block = rails.before(Question([{"role": "user", "content": text}])).block
    if block is not None:
        return "rail", f"{block.rail}: {block.why}"
    private = [span.kind for span in find(text) if span.kind not in _CONTACTS]
    return ("personal", f"It holds: {', '.join(sorted(set(private)))}.") if private else None


def _contact(one: _Said, hosts: set[str], told: str) -> tuple[str, str] | None:
    """Object to a contact that the line never named and one person alone names."""
    text = one.said.text
    new = _hosts(text) - hosts
    people = [s for s in find(text) if letters(text[s.start : s.end]) not in told]
    if _alone(one) and (new or people):
        kinds = sorted({s.kind for s in people} | ({"address"} if new else set()))
        return "contact", f"New: {', '.join(kinds)}."
    return None


def _hosts(text: str) -> set[str]:
    return {(a or b).lower().removeprefix("www.") for a, b in _HOST.findall(text)}


def _repeated(desk: _Desk) -> dict[int, tuple[str, str]]:
    """Hold back one author's one answer to many questions."""
    groups: dict[tuple[str, float | None], set[str]] = defaultdict(set)
    for one in desk.all:
        if one.said.text:
            for author in one.lesson.authors or ("",):
                groups[author, one.vote].add(one.group)
    found = {}
    for n, one in enumerate(desk.all):
        author = next(iter(one.lesson.authors), "")
        count = len(groups[author, one.vote]) if one.said.text else 0
        if _alone(one) and count > desk.rules.most_same:
            found[n] = ("repeated", f"The same to {count} questions.")
    return found


def _superseded(desk: _Desk) -> dict[int, tuple[str, str]]:
    """Hold back what an author no longer says about a question."""
    last: dict[tuple[str, tuple[str, ...]], int] = {}
    for n, one in enumerate(desk.all):
        if one.vote is not None:
            last[one.group, one.lesson.authors] = n
    found = {}
    for n, one in enumerate(desk.all):
        newest = last.get((one.group, one.lesson.authors), n)
        if one.vote is not None and desk.all[newest].vote != one.vote:
            found[n] = ("superseded", "")
    return found


def _conflicts(desk: _Desk) -> dict[int, tuple[str, str]]:
    """Hold back what is disputed: of one question only the answer with most voices is learned."""
    found = {}
    for places in _by_group(desk.all).values():
        voices: dict[float, set[str]] = defaultdict(set)
        against: dict[float, set[str]] = defaultdict(set)
        for n in places:
            one = desk.all[n]
            if one.vote is not None:
                voices[one.vote] |= set(one.lesson.authors) or {""}
            else:
                against[of_text(one.asked.answer)] |= set(one.lesson.authors) or {""}
        winner = _winner(voices, against)
        for n in places:
            one = desk.all[n]
            stands = (
                one.vote == winner
                if one.vote is not None
                else (of_text(one.asked.answer) != winner)
            )
            if not stands:
                found[n] = ("conflict", f"{len(voices)} answers to one question.")
    return found


def _by_group(all_: Sequence[_Said]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for n, one in enumerate(all_):
        found[one.group].append(n)
    return found


def _winner(voices: Mapping[float, set[str]], against: Mapping[float, set[str]]) -> float | None:
    """Return the answer that most speak for; None where it is disputed.

    More keys win. With the same keys more people do; different keys against each other are a
    dispute, since behind one key there can be any number of names.
    """
    ranked = sorted(voices, key=lambda v: (_keys(voices[v]), len(voices[v])), reverse=True)
    if not ranked:
        return None
    best = ranked[0]
    rivals = [voices[other] for other in ranked[1:]]
    rivals += [against[best]] if against.get(best) else []
    return best if all(_more(voices[best], rival) for rival in rivals) else None


def _keys(authors: set[str]) -> int:
    return len({caller_of(author) for author in authors})


def _more(authors: set[str], rivals: set[str]) -> bool:
    ours, theirs = ({caller_of(a) for a in names} for names in (authors, rivals))
    return len(ours) > len(theirs) or (ours == theirs and len(authors) > len(rivals))


def _pair(one: _Said, rules: Rules) -> TextPair:
    served = one.asked.answer
    answer = one.said.text or (served if one.said.kind == "good" else "")
    return TextPair(
        prediction=one.asked.prediction,
        messages=one.asked.messages,
        text=one.asked.text,
        answer=answer,
        rejected=served if one.lesson.label != GOOD and of_text(served) != of_text(answer) else "",
        weight=rules.weight if one.said.kind == "answer" else 1.0,
        name=f"feedback:{'+'.join(one.lesson.feedback)}",
    )
