"""Who can teach: a server with OpenAI's API, or a larger model in an engine of this machine."""

import http.client
import json
import os
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from genba.core.problem import Problem
from genba.core.talk import Ask, Piece, Talks, Words
from genba.learn.language.distil import Answered, Sampling

KEY: Final = "GENBA_TEACHER_KEY"
_TIMEOUT_S: Final = 300.0
_MOST_BYTES: Final = 16_000_000  # of an answer


class Endpoint:
    """A server with OpenAI's chat completions.

    Args:
        address: Of the API, such as "http://127.0.0.1:8000/v1"; a key is taken from the variable
            GENBA_TEACHER_KEY.
        model: Its name there.

    Raises:
        Problem: G564 for what is no such address.
    """

    def __init__(self, address: str, model: str) -> None:
        self._parts = urlsplit(address)
        self.name = f"{address} {model}"
        if self._parts.scheme not in ("http", "https") or not self._parts.hostname:
            raise self._silent("It is no http or https address.")
        self._model = model

    def answer(self, messages: Words, sampling: Sampling, seed: int) -> Answered:
        """Answer a conversation.

        Raises:
            Problem: G564 when the server does not answer, or not as OpenAI's does.
        """
        said = self._post(
            {
                "model": self._model,
                "messages": list(messages),
                "max_tokens": sampling.most,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "seed": seed,
            }
        )
        try:
            choice = said["choices"][0]
            return Answered(
                text=str(choice["message"]["content"] or ""),
                finish=str(choice["finish_reason"]),
                model=str(said.get("model", self._model)),
                tokens=int((said.get("usage") or {}).get("completion_tokens", 0)),
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._silent(f"Its answer is no chat completion: {error!r}") from error

    def _post(self, body: Mapping[str, Any]) -> Any:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=_TIMEOUT_S)
        headers = {"content-type": "application/json"}
        if key := os.environ.get(KEY):
            headers["authorization"] = f"Bearer {key}"
        path = f"{self._parts.path.rstrip('/')}/chat/completions"
        try:
            connection.request("POST", path, json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            data = answer.read(_MOST_BYTES)
            if answer.status != http.HTTPStatus.OK:
                text = data[:200].decode("utf-8", "replace")
                raise self._silent(f"It answers {answer.status} {answer.reason}: {text}")
            return json.loads(data)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._silent(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _silent(self, why: str) -> Problem:
        return Problem(
            "G564",
            f"The teacher {self.name} cannot be asked.",
            why=why,
            tries=[f"export {KEY}=…", "genba explain G564"],
        )


class Local:
    """A larger model in an engine of this process.

    Args:
        talks: The engine.
        name: Of the model, with what tells it from others: a file and its digest.
    """

    def __init__(self, talks: Talks, name: str) -> None:
        self._talks = talks
        self.name = name

    def answer(self, messages: Words, sampling: Sampling, seed: int) -> Answered:
        """Answer a conversation; raises what the engine raises."""
        tokens: list[int] = []
        last: list[Piece] = []
        over = threading.Event()

        def said(piece: Piece) -> None:
            tokens.extend(piece.tokens)
            if piece.finish:
                last.append(piece)
                over.set()

        ask = Ask(
            tokens=np.array(self._talks.vocabulary.prompt(messages), np.int64),
            most=sampling.most,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed,
        )
        self._talks.ask(ask, said)
        over.wait()
        if last[0].problem is not None:
            raise last[0].problem
        return Answered(
            text=self._talks.vocabulary.decode(tokens),
            finish="stop" if last[0].finish in ("end", "stop") else last[0].finish,
            model=self.name,
            tokens=len(tokens),
        )
