"""What in a question an answer comes from: a part is left out, and the answer judged again.

Li, Monroe and Jurafsky, "Understanding neural networks through representation erasure", 2016.
Nothing but the probability of a given answer is asked of the model.
"""

import re
from typing import Any, Final

import numpy as np

from genba.core.protocols import JsonObject, Predict, Tensors
from genba.core.task import Attribution, Explanation
from genba.edge.texts import USER, as_bytes, content_of, messages_of, written
from genba.tasks.language.chat import schema

_MOST_PARTS: Final = 8
_SENTENCE: Final = re.compile(r"(?<=[.!?。！？])\s*(?=\S)|\n+")
_SHOWN: Final = 60  # characters of a part


def explain(predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
    """Say which parts of the last question speak for the answer (batch of one).

    A share is a part's portion of the probability that the answer loses without it (in nats per
    token); `value` is the mean logarithm of the probability without the part, `usual` with it.
    """
    one = {name: tensor[:1] for name, tensor in tensors.items()}
    given = np.asarray(one.get("given", as_bytes([""])))
    if not given[0]:
        given = np.asarray(predict(schema.unanswered(one))["answer"])
    messages = messages_of(one["messages"][0])
    place, parts = _parts(messages)
    without = [_left_out(messages, place, parts, at) for at in range(len(parts))]
    asked = as_bytes([one["messages"][0], *without])
    found = predict(
        {
            "messages": asked,
            "given": as_bytes([given[0]] * len(asked)),
            **schema.parameters(len(asked), settings),
        }
    )
    sure = np.nan_to_num(np.asarray(found["log_probability"], dtype=np.float64), nan=0.0)
    drops = np.maximum(sure[0] - sure[1:], 0.0)
    shares = drops / drops.sum() if drops.sum() > 0 else np.full(len(parts), 1 / len(parts))
    return Explanation(
        attributions=tuple(
            Attribution(
                name=" ".join(parts[at].split())[:_SHOWN] or "(nothing)",
                share=float(shares[at]),
                value=float(sure[at + 1]),
                usual=float(sure[0]),
            )
            for at in np.argsort(-shares, kind="stable")
        )
    )


def _parts(messages: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Return the place of the last question, and its parts: sentences, or words where it is one."""
    spoken = [at for at, message in enumerate(messages) if message.get("role") == USER]
    place = spoken[-1] if spoken else len(messages) - 1
    text = content_of(messages[place])
    found = [part for part in _SENTENCE.split(text) if part.strip()]
    if len(found) < 2:
        found = text.split() or [text]
    size = -(-len(found) // _MOST_PARTS)
    return place, [" ".join(found[at : at + size]) for at in range(0, len(found), size)]


def _left_out(messages: list[dict[str, Any]], place: int, parts: list[str], out: int) -> bytes:
    rest = " ".join(part for at, part in enumerate(parts) if at != out)
    changed = [{**m, "content": rest} if at == place else m for at, m in enumerate(messages)]
    return written(changed)
