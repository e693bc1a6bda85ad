"""The shapes in which questions and answers are kept, made into one: messages and an answer.

Understood, record by record, so a file may mix them: messages (`role`, `content`), ShareGPT
(`conversations` of `from`, `value`), prompt and completion, alpaca (`instruction`, `input`,
`output`), preference pairs (`prompt`, `chosen`, `rejected`, as texts or as messages; with or
without the prompt), question and answer under a few usual names, and plain text, which has an
answer only.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

Message = dict[str, str]

_ROLES: Final = {
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bing", "bard"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
#: Keys under which a question and its answer are found, the surest first.
_PAIRS: Final = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("q", "a"),
    ("input", "output"),
    ("context", "response"),
)
_ALONE: Final = ("text", "content", "document", "question", "query", "utterance", "q")
_MISSING: Final = "no question and no answer"
_ROLE: Final = "an unknown role"
_PARTS: Final = "a message that is no text"
_TOOLS: Final = "tool calls"
_SILENT: Final = "no answer of the assistant"
_LAST: Final = "the question is not of the user"
_APART: Final = "the two answers are not to one question"


class UnreadableError(Exception):
    """A record that is none of the shapes."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A conversation up to a message of the user, and what was answered to it."""

    messages: tuple[Message, ...]  # () of plain text
    answer: str = ""
    rejected: str = ""  # a dispreferred answer
    weight: float = 1.0

    @property
    def text(self) -> str:
        """The last message of the user; "" of plain text."""
        return self.messages[-1]["content"] if self.messages else ""


def samples(
    record: Mapping[str, Any], question: str | None = None, answer: str | None = None
) -> list[Sample]:
    r"""Return what a record says; a conversation gives one sample per answer of the assistant.

    Args:
        record: As it was read.
        question: Key of the question, where a line names it.
        answer: Key of the answer, where a line names it.

    Raises:
        UnreadableError: When it is none of the shapes.

    Example:
        >>> samples({"instruction": "Add.", "input": "1 + 1", "output": "2"})[0].text
        'Add.\n\n1 + 1'
        >>> turns = ["Hello", "Good day", "Who are you?", "A machine"]
        >>> said = [{"from": f, "value": v} for f, v in zip(["human", "gpt"] * 2, turns)]
        >>> [(len(s.messages), s.answer) for s in samples({"conversations": said})]
        [(1, 'Good day'), (3, 'A machine')]
    """
    if question is not None:
        found = [_named(record, question, answer)]
    elif isinstance(record.get("messages"), Sequence) and not isinstance(record["messages"], str):
        found = list(_turns(_messages(record["messages"])))
    elif isinstance(record.get("conversations"), Sequence):
        found = list(_turns(_messages(record["conversations"])))
    elif "chosen" in record and "rejected" in record:
        found = [_preference(record)]
    else:
        found = list(_pair(record))
    if any(sample.messages and sample.messages[-1]["role"] != "user" for sample in found):
        raise UnreadableError(_LAST)
    return [_completed(sample, record) for sample in found]


def _completed(sample: Sample, record: Mapping[str, Any]) -> Sample:
    """Add what stands beside the messages: instructions of the system, and a weight."""
    system, weight = record.get("system") or record.get("system_prompt"), record.get("weight")
    stated = isinstance(system, str) and system.strip()
    if stated and sample.messages and sample.messages[0]["role"] != "system":
        first = {"role": "system", "content": str(system)}
        sample = replace(sample, messages=(first, *sample.messages))
    if isinstance(weight, (int, float)) and not isinstance(weight, bool) and 0 < weight < 1e6:
        sample = replace(sample, weight=float(weight))
    return sample


def _named(record: Mapping[str, Any], question: str, answer: str | None) -> Sample:
    asked, said = _text(record.get(question)), _text(record.get(answer)) if answer else ""
    if not asked.strip():
        raise UnreadableError(_MISSING, f"nothing under {question}")
    return Sample(messages=({"role": "user", "content": asked},), answer=said)


def _pair(record: Mapping[str, Any]) -> Iterator[Sample]:
    for asked, said in _PAIRS:
        if record.get(asked) is None or record.get(said) is None:
            continue
        if isinstance(record[asked], Sequence) and not isinstance(record[asked], str):
            before = _messages(record[asked])
        else:
            before = [{"role": "user", "content": _question(record, asked)}]
        yield Sample(messages=tuple(before), answer=_answer(record[said]))
        return
    for name in _ALONE:
        if isinstance(record.get(name), str) and record[name].strip():
            yield _alone(name, record[name])
            return
    raise UnreadableError(_MISSING, f"keys: {', '.join(map(str, list(record)[:10]))}")


def _alone(name: str, text: str) -> Sample:
    if name in ("text", "content", "document"):
        return Sample(messages=(), answer=text)
    return Sample(messages=({"role": "user", "content": text},))


def _question(record: Mapping[str, Any], name: str) -> str:
    """Return a question with the input that an instruction is about."""
    asked, about = _text(record[name]), record.get("input")
    if name != "instruction" or not isinstance(about, str) or not about.strip():
        return asked
    return f"{asked}\n\n{about}"


def _answer(value: Any) -> str:
    """Return an answer that is a text, or the last of a few messages."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        found = _messages(value)
        if not found or found[-1]["role"] != "assistant":
            raise UnreadableError(_SILENT)
        return found[-1]["content"]
    return _text(value)


def _preference(record: Mapping[str, Any]) -> Sample:
    """Return a pair of answers of which one was preferred."""
    chosen, rejected = record["chosen"], record["rejected"]
    prompt = record.get("prompt", record.get("question", record.get("instruction")))
    if prompt is None:
        return _whole(_spoken(chosen), _spoken(rejected))
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    before = _messages(asked)
    return Sample(messages=tuple(before), answer=_answer(chosen), rejected=_answer(rejected))


def _whole(chosen: list[Message], rejected: list[Message]) -> Sample:
    """Return a pair of conversations that differ in their last answers only."""
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise UnreadableError(_APART)
    if {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"}:
        raise UnreadableError(_SILENT)
    return Sample(
        messages=tuple(chosen[:-1]), answer=chosen[-1]["content"], rejected=rejected[-1]["content"]
    )


def _spoken(value: Any) -> list[Message]:
    """Return messages, or those of a text that marks who speaks, as some preference data do."""
    if not isinstance(value, str):
        return _messages(value)
    found: list[Message] = []
    for part in value.split("\n\nHuman: ")[1:]:
        asked, *said = part.split("\n\nAssistant: ")
        found.append({"role": "user", "content": asked.strip()})
        found += [{"role": "assistant", "content": text.strip()} for text in said]
    return found


def _messages(values: Iterable[Any]) -> list[Message]:
    found = []
    for value in values:
        if not isinstance(value, Mapping):
            raise UnreadableError(_PARTS, str(value)[:100])
        if value.get("tool_calls") or value.get("function_call") or value.get("role") == "tool":
            raise UnreadableError(_TOOLS)
        said = str(value.get("role", value.get("from", ""))).strip().lower()
        if said not in _ROLES:
            raise UnreadableError(_ROLE, said[:100])
        text = _text(value.get("content", value.get("value")))
        found.append({"role": _ROLES[said], "content": text})
    return found


def _turns(messages: list[Message]) -> Iterator[Sample]:
    """Yield a sample for every answer; a conversation that nobody answered is a question."""
    while messages and messages[0]["role"] == "assistant":  # a greeting that nothing led to
        messages = messages[1:]
    asked = [at for at, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        raise UnreadableError(_SILENT)
    replied = False
    for at, message in enumerate(messages):
        if message["role"] == "assistant" and messages[at - 1]["role"] == "user":
            replied = True
            yield Sample(messages=tuple(messages[:at]), answer=message["content"])
    if not replied:
        yield Sample(messages=tuple(messages[: asked[-1] + 1]))


def _text(value: Any) -> str:
    """Return a text, or the texts of a message in parts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, Sequence):
        parts = [p.get("text") if isinstance(p, Mapping) else p for p in value]
        if parts and all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    raise UnreadableError(_PARTS, str(value)[:100])
