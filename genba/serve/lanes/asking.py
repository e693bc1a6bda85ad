"""From a request to what a language model is asked: rails, student, documents, then tokens.

All of it may take a while (an embedding, a search), so it is done on a thread.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.core.talk import Ask, Talks, Words
from genba.edge.texts import messages_of
from genba.serve.http.responses import Refusal
from genba.serve.lanes.jobs import Job
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.speech import Speech, Told, Wish
from genba.serve.lanes.voice import Voice, as_list, written_sources
from genba.serve.oip.tensors import bad

MESSAGES: Final = "messages"
GIVEN: Final = "given"
MOST: Final = "max_tokens"
_MOST: Final = 128
_HOTTEST: Final = 5.0
_PROBE: Final = ({"role": "user", "content": "?"},)
_PROBE_TOOL: Final = (
    {"type": "function", "function": {"name": "probe", "description": "", "parameters": {}}},
)
#: How a model is told of tools whose own template says nothing of them; many were trained on it.
_TOLD_OF_TOOLS: Final = """\
You may call one or more functions to answer. They are, as JSON schemas:
<tools>
{tools}
</tools>
For each call write JSON with the name of the function and its arguments:
<tool_call>
{{"name": NAME, "arguments": {{...}}}}
</tool_call>"""

Prepared = Voice | Told


class Asker:
    """Prepares requests for one package.

    Args:
        model: A package whose engine is a `Talks`, perhaps with an assistant around it.
    """

    def __init__(self, model: LoadedModel) -> None:
        assert model.talks is not None
        self._model = model
        self._talks: Talks = model.talks
        self._vocabulary = self._talks.vocabulary
        self._assistant: Any = model.engine if hasattr(model.engine, "plan") else None
        parts = getattr(self._assistant, "parts", None)
        self.railed = getattr(parts, "rails", None) is not None
        #: Whether text takes long on its way out, because somebody looks at it.
        self.slow = self.railed or getattr(parts, "library", None) is not None
        told = self._vocabulary.prompt(_PROBE, tools=_PROBE_TOOL)
        self._knows_tools = as_list(told) != as_list(self._vocabulary.prompt(_PROBE))

    def prepare(self, job: Job, standing: Mapping[str, float]) -> list[Prepared]:
        """Return for every row what is asked, or the answer where nobody needs to be asked.

        Args:
            job: With or without a `Speech`.
            standing: The parameters that hold where the request says none.

        Raises:
            Refusal: 400 for what cannot be asked.
            Problem: What the template of the model says of the messages, for instance.
        """
        speech = job.speech or Speech()
        wishes = speech.wishes or _wishes(job)
        plans: dict[int, Any] = {}
        return [self._row(job, row, wish, standing, plans) for row, wish in enumerate(wishes)]

    def _row(
        self,
        job: Job,
        row: int,
        wish: Wish,
        standing: Mapping[str, float],
        plans: dict[int, Any],
    ) -> Prepared:
        given = job.tensors.get(GIVEN)
        if given is not None and given[row]:
            return self._scored(job, row)
        values = {name: _value(job, name, row, value) for name, value in standing.items()}
        most = _most(values)
        if self.railed and wish.logs and most > 1:
            raise _no_tokens()
        plan = None
        if self._assistant is not None and (wish.prompt is None or self.railed):
            key = id(wish.words) if wish.prompt is None else row
            if key not in plans:
                plans[key] = self._plan(job, wish, most)
            plan = plans[key]
            if plan.answer is not None:
                return _answered(plan)
        voice = Voice(row, wish, self._vocabulary, None if plan is None else plan.guard())
        voice.prompt = self._prompt(wish, plan)
        if wish.scored is not None:
            tokens = np.asarray(voice.prompt, dtype=np.int64)
            voice.scored = self._talks.score(tokens, likeliest=wish.scored)
        if not most:
            voice.finish = "length"
            return voice.end()[1]
        said = MOST in job.tensors
        room = self._talks.context - len(voice.prompt)
        voice.ask = _ask(voice, values, most if said else max(1, min(most, room)))
        return voice

    def _plan(self, job: Job, wish: Wish, most: int) -> Any:
        """Have the assistant look at a question; text that is only gone on from is one too."""
        words, tools = wish.words, wish.tools
        if wish.prompt is not None:
            text = wish.prompt
            if not isinstance(text, str):
                text = self._vocabulary.decode(as_list(text))
            words = [{"role": "user", "content": text}]
        else:
            words = for_template(words) if self._knows_tools else in_words(words, tools)
        return self._assistant.plan(
            words,
            access=job.speech.access if job.speech else frozenset(),
            tools=tools if self._knows_tools else (),
            plain=wish.plain and wish.prompt is None,
            most=most,
        )

    def _prompt(self, wish: Wish, plan: Any) -> Sequence[int]:
        vocabulary = self._vocabulary
        if isinstance(wish.prompt, str):
            return vocabulary.encode(wish.prompt, special=True)
        if wish.prompt is not None:
            return self._known(as_list(wish.prompt))
        if plan is not None:
            return as_list(plan.tokens)
        if self._knows_tools:
            return vocabulary.prompt(for_template(wish.words), tools=wish.tools)
        return vocabulary.prompt(in_words(wish.words, wish.tools))

    def _known(self, tokens: list[int]) -> list[int]:
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocabulary.size:
            raise bad(f"A token is a number from 0 to {self._vocabulary.size - 1}.")
        return tokens

    def _scored(self, job: Job, row: int) -> Told:
        """Have an answer scored that was given."""
        tensors = {name: tensor[row : row + 1] for name, tensor in job.tensors.items()}
        found = self._model.run(tensors, 1)
        counted = found["tokens"][0].tolist()
        return Told(
            text=_text(found, "answer", ""),
            finish="end",
            by=_text(found, "by", "model"),
            sources=_text(found, "sources", "[]"),
            log_probability=float(found["log_probability"][0]),
            counted=(counted[0], counted[1]),
        )


def for_template(words: Words) -> Words:
    """Return a conversation for a template that knows tools: it takes arguments as objects.

    Example:
        >>> call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        >>> told = for_template([{"role": "assistant", "content": "", "tool_calls": [call]}])
        >>> told[0]["tool_calls"][0]["function"]
        {'name': 'f', 'arguments': {'a': 1}}
    """
    return [
        {**message, "tool_calls": [_with_object(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in words
    ]


def _with_object(call: Mapping[str, Any]) -> Mapping[str, Any]:
    about = call["function"]
    try:
        read = json.loads(about["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**about, "arguments": read}} if isinstance(read, dict) else call


def in_words(words: Words, tools: Sequence[Mapping[str, Any]]) -> Words:
    r"""Return a conversation for a template that knows no tools: they and their calls are text.

    Example:
        >>> in_words([{"role": "tool", "content": "12"}], ())
        [{'role': 'user', 'content': '<tool_response>\n12\n</tool_response>'}]
    """
    made: list[Mapping[str, Any]] = [_in_words(message) for message in words]
    if not tools:
        return made
    told = _TOLD_OF_TOOLS.format(tools="\n".join(json.dumps(tool) for tool in tools))
    if made and made[0].get("role") == "system":
        return [{**made[0], "content": f"{made[0].get('content') or ''}\n\n{told}"}, *made[1:]]
    return [{"role": "system", "content": told}, *made]


def _in_words(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message.get("role") == "tool":
        content = f"<tool_response>\n{message.get('content') or ''}\n</tool_response>"
        return {"role": "user", "content": content}
    if not message.get("tool_calls"):
        return message
    parts = [str(message.get("content") or "")]
    for call in message["tool_calls"]:
        about = call["function"]
        told = f'{{"name": {json.dumps(about["name"])}, "arguments": {about["arguments"]}}}'
        parts.append(f"<tool_call>\n{told}\n</tool_call>")
    return {"role": message["role"], "content": "\n".join(filter(None, parts))}


def _wishes(job: Job) -> list[Wish]:
    return [Wish(words=messages_of(value)) for value in job.tensors[MESSAGES]]


def _value(job: Job, name: str, row: int, standing: float) -> float:
    sent = job.tensors.get(name)
    return standing if sent is None else float(sent[row])


def _most(values: Mapping[str, float]) -> int:
    """Return how many tokens an answer may have, once all that is asked for makes sense."""
    if not 0.0 <= values.get("temperature", 0.0) <= _HOTTEST:
        raise bad(f"The temperature is a number from 0 to {_HOTTEST:g}.")
    if not 0.0 < values.get("top_p", 1.0) <= 1.0:
        raise bad("top_p is a number above 0 and up to 1.")
    most = values.get(MOST, _MOST)
    if most < 0 or most != int(most):
        raise bad("max_tokens is a whole number, 0 or more.")
    return int(most)


def _ask(voice: Voice, values: Mapping[str, float], most: int) -> Ask:
    wish = voice.wish
    return Ask(
        tokens=np.asarray(voice.prompt, dtype=np.int64),
        most=most,
        least=wish.least,
        temperature=values.get("temperature", 0.0),
        top_p=values.get("top_p", 1.0),
        seed=wish.seed,
        end=wish.end,
        ignore_end=wish.ignore_end,
        likeliest=wish.likeliest,
        schema=wish.schema,
    )


def _answered(plan: Any) -> Told:
    """Return the answer of a plan that needs no language model."""
    ending = plan.ending()
    student = plan.student
    sources = written_sources(ending.sources)
    logs = 0.0
    if student is not None:
        logs = float(np.log(max(student.confidence, 1e-9)))
        if student.origin:
            sources = json.dumps([{"answer": student.origin}], ensure_ascii=False)
    return Told(
        text=ending.answer,
        finish="end",
        blocked=plan.block is not None,
        by=ending.by,
        sources=sources,
        log_probability=logs,
    )


def _text(found: Mapping[str, Array], name: str, otherwise: str) -> str:
    if name not in found:
        return otherwise
    return bytes(found[name][0]).decode("utf-8", "replace")


def _no_tokens() -> Refusal:
    """Refuse to tell the tokens of an answer that rails may change."""
    what = "Rails look at what this line says, so it does not tell the tokens of its answers."
    return Refusal(400, "G783", what)
