"""A judge: another language model says which of two answers is better, asked in both orders.

Zheng et al., "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena", NeurIPS 2023: a judge
prefers what it reads first, so the answers change places, and what it says only in one order is a
tie. Any server with the chat completions of OpenAI will do.
"""

import http.client
import json
import os
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import JsonObject
from genba.core.values import Measure
from genba.learn.bootstrap import interval, ratio, sums_by_block

KEY: Final = "GENBA_JUDGE_KEY"
_TIMEOUT_S: Final = 60.0
_MOST_ANSWER: Final = 4_000  # characters
_WON, _LOST, _TIE = 1.0, 0.0, 0.5
_PROMPT: Final = """Two assistants answered a question. Which answer is better?
Judge whether it says what the right answer says, and nothing that is wrong.

Question: {question}

Right answer: {right}

Answer A: {first}

Answer B: {second}

Say A or B or SAME, nothing else."""


def judged(
    questions: Sequence[str],
    right: Sequence[str],
    mine: Sequence[str],
    base: Sequence[str],
    settings: JsonObject,
) -> dict[str, Measure]:
    """Return how often a judge finds an answer better than that of the base; ties count half.

    Returns:
        `judged_better` with its interval, nothing where the settings name no judge.

    Raises:
        Problem: G571 when the judge cannot be asked.
    """
    address, _, model = str(settings.get("judge") or "").partition(" ")
    if not address:
        return {}
    judge = Judge(address, model.strip())
    points = [judge.compare(*pair) for pair in zip(questions, right, mine, base, strict=True)]
    sums = sums_by_block(np.arange(len(points)), points, np.ones(len(points)))
    value, low, high = interval(ratio(0, 1), sums)
    return {"judged_better": Measure(value=value, low=low, high=high, n=len(points))}


class Judge:
    """A server that is asked.

    Args:
        address: Of the API, such as "http://127.0.0.1:8000/v1".
        model: Name of the model there; "" where it has one only.

    Raises:
        Problem: G571 for what is no such address.
    """

    def __init__(self, address: str, model: str = "") -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise _unusable(address, "It is no http or https address.")
        self._address, self._parts, self._model = address, parts, model

    def compare(self, question: str, right: str, mine: str, base: str) -> float:
        """Return 1.0 when the first answer is better in both orders, 0.0 when the second is."""
        if mine.strip() == base.strip():
            return _TIE
        first = self._says(question, right, mine, base)
        second = self._says(question, right, base, mine)
        if (first, second) == ("A", "B"):
            return _WON
        return _LOST if (first, second) == ("B", "A") else _TIE

    def _says(self, question: str, right: str, first: str, second: str) -> str:
        texts = {"question": question, "right": right, "first": first, "second": second}
        content = _PROMPT.format(**{name: text[:_MOST_ANSWER] for name, text in texts.items()})
        answer = self._post(
            {
                "model": self._model or "default",
                "messages": [{"role": "user", "content": content}],
                "max_tokens": 8,
                "temperature": 0,
            }
        )
        try:
            said = str(answer["choices"][0]["message"]["content"])
        except (KeyError, IndexError, TypeError) as error:
            raise _unusable(self._address, "Its answer is no chat completion.") from error
        words = said.replace(".", " ").upper().split()
        return next((word for word in words if word in ("A", "B", "SAME")), "SAME")

    def _post(self, body: JsonObject) -> Any:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=_TIMEOUT_S)
        headers = {"content-type": "application/json"}
        if key := os.environ.get(KEY):
            headers["authorization"] = f"Bearer {key}"
        path = f"{self._parts.path.rstrip('/')}/chat/completions"
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise _unusable(self._address, f"It answers {answer.status} {answer.reason}.")
            return json.loads(data)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unusable(self._address, f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()


def _unusable(address: str, why: str) -> Problem:
    return Problem(
        "G571",
        f"The judge at {address} cannot be asked.",
        where="options.judge",
        why=why,
        tries=["--set options.judge=", f"export {KEY}=…", "genba explain G571"],
    )
