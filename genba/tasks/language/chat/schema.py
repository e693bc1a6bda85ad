"""What a sample is: a conversation, and the answer that a person would give."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from genba.core.line import Limit, Line
from genba.core.options import read_options
from genba.core.problem import Problem
from genba.core.protocols import Array, Columns, JsonObject, Tensors, View
from genba.core.task import Option, Recovered, Samples
from genba.core.values import Signature, Tensor
from genba.edge.assistant.settings import REFUSAL
from genba.edge.texts import as_bytes, as_text, messages_of, question_of, written
from genba.learn.encoder import MINILM, encoders
from genba.learn.language.bases import PACKAGE, PACKAGES, base_of
from genba.runs.progress import SilentProgress

METHODS: Final = ("lora", "full", "dpo")
MAX_TOKENS: Final = "max_tokens"

OPTIONS: Final = {
    "answer_tokens": Option(
        about="tokens that an answer may have where nobody says otherwise",
        default=128,
        low=1,
        high=8192,
    ),
    "base": Option(
        about="the model to begin with: package:smollm2-135m, a GGUF file, or a folder with "
        "config.json, safetensors and tokenizer.json",
        default=f"{PACKAGE}{next(iter(PACKAGES))}",
    ),
    "documents": Option(
        about="what answers may rest on and cite: package:NAME, files:FOLDER", default=[""]
    ),
    "encoder": Option(
        about="what says how alike two texts are; letters needs no download and knows no meaning",
        default=MINILM,
        choices=encoders(),
    ),
    "epochs": Option(about="times that every answer is learned from", default=3, low=1, high=100),
    "judge": Option(
        about="address of an OpenAI-compatible server that compares answers with those of the "
        'base, such as "http://127.0.0.1:8000/v1 MODEL"; nobody judges where it is empty',
        default="",
    ),
    "precision": Option(
        about="of the arithmetic in training; auto measures which is faster here",
        default="auto",
        choices=("auto", "bf16", "fp32"),
    ),
    "quant": Option(
        about="number format of the weights in the package",
        default="q8_0",
        choices=("q8_0", "q4_0", "bf16", "f16", "f32"),
    ),
    "questions": Option(
        about="file of questions with the places of their answers in the documents, JSON Lines: "
        "what hit_rate_at_3 and mrr are measured with",
        default="",
    ),
    "rails": Option(
        about="refuse attacks and mask personal data, in questions and in answers", default=True
    ),
    "refusal": Option(about="what is said in place of an answer", default=REFUSAL),
    "system": Option(
        about="said to the model where a conversation has no system message", default=""
    ),
    "method": Option(
        about="what is trained: lora (small matrices beside the weights), full (all weights), or "
        "dpo (lora, then pairs of a good and a bad answer)",
        default="lora",
        choices=METHODS,
    ),
    "teacher": Option(
        about="a larger model that answers questions which nobody has answered: an "
        'OpenAI-compatible server, such as "http://127.0.0.1:8000/v1 MODEL", or what base may be',
        default="",
    ),
    "written": Option(
        about="questions of the test set that are answered in writing; the rest is judged by how "
        "likely the model finds the right answer",
        default=32,
        low=4,
    ),
}


def suggest(line: Line) -> Line:
    """Ask that the tuned model finds the right answers likelier than the base does."""
    return replace(line, gates={"loss_gain": Limit(min=0.0), **line.gates})


def derive(line: Line, view: View) -> dict[str, Any]:  # noqa: ARG001  the seam's
    """Derive every setting the line leaves open, as JSON that is printed and recorded.

    Raises:
        Problem: G105 for a candidate that there is not, G560 for a base that there is not.
    """
    options = read_options(OPTIONS, line.options)
    base = base_of(str(options["base"]), SilentProgress())
    return {
        "base": {
            "name": base.name,
            "digest": base.digest,
            "licence": base.licence,
            "attribution": base.attribution,
        },
        "method": _method(line, str(options["method"])),
        **{
            name: options[name]
            for name in ("answer_tokens", "encoder", "epochs", "judge", "quant", "rails")
        },
        **{
            name: options[name] for name in ("precision", "refusal", "system", "teacher", "written")
        },
        "documents": [name for name in options["documents"] if name],
        "sensors": [],
        "merge": 1,
    }


def signature(settings: JsonObject) -> Signature:
    """Return the inputs and outputs of a package with these settings."""
    one = (-1,)
    most = float(settings["answer_tokens"])

    def parameter(name: str, default: float, unit: str = "") -> Tensor:
        return Tensor(
            name=name, datatype="FP32", shape=one, role="parameter", unit=unit, default=default
        )

    return Signature(
        inputs=(
            Tensor(name="messages", datatype="BYTES", shape=one, role="text"),
            Tensor(name="given", datatype="BYTES", shape=one, role="given"),
            parameter(MAX_TOKENS, most, "tokens"),
            parameter("temperature", 0.0),
            parameter("top_p", 1.0),
        ),
        outputs=(
            Tensor(name="answer", datatype="BYTES", shape=one, role="text"),
            Tensor(name="log_probability", datatype="FP32", shape=one, role="confidence"),
            Tensor(name="tokens", datatype="INT32", shape=(-1, 2), role="count", unit="tokens"),
            Tensor(name="by", datatype="BYTES", shape=one, role="origin"),
            Tensor(name="sources", datatype="BYTES", shape=one, role="origin"),
        ),
    )


def samples(columns: Columns, settings: JsonObject) -> Samples:
    """Turn conversations into what a package takes; the known answer is given, to be scored."""
    count = len(columns["row"])
    label = np.asarray(columns["label"], dtype=np.float64)
    return Samples(
        tensors={
            "messages": as_bytes([with_system(text, settings) for text in columns["messages"]]),
            "given": as_bytes(columns["answer"]),
            **parameters(count, settings),
        },
        entity=np.asarray(columns["entity"]).astype(np.int32),
        time=np.asarray(columns["time"], dtype=np.int64),
        row=np.asarray(columns["row"], dtype=np.int64),
        label=label,
        truth=label[:, None],
    )


def with_system(messages: Any, settings: JsonObject) -> str:
    """Return messages with the line's system message in front, where they have none.

    Example:
        >>> with_system('[{"role":"user","content":"Hi"}]', {"system": "Be brief."})
        '[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]'
    """
    text, system = as_text(messages), str(settings["system"])
    found = messages_of(text)
    if not system or not found or found[0].get("role") == "system":
        return text
    return as_text(written([{"role": "system", "content": system}, *found]))


def parameters(count: int, settings: JsonObject) -> dict[str, Array]:
    """Return the parameters as they are packaged, for so many questions."""
    return {
        tensor.name: np.full(count, tensor.default, dtype=np.float32)
        for tensor in signature(settings).inputs
        if tensor.role == "parameter"
    }


def unanswered(tensors: Tensors) -> dict[str, Array]:
    """Return the questions alone, so that answers are written."""
    return {name: tensor for name, tensor in tensors.items() if name != "given"}


def rows(tensors: Tensors) -> Recovered:
    """Return the conversations that a package was given."""
    given = [as_text(value) for value in tensors["messages"]]
    messages, asked = np.empty(len(given), dtype=object), np.empty(len(given), dtype=object)
    messages[:] = given
    asked[:] = questions(given)
    return Recovered(
        columns={"messages": messages, "text": asked},
        of=np.arange(len(given), dtype=np.int64),
        steps_back=np.zeros(len(given), dtype=np.int64),
    )


def questions(messages: Sequence[Any] | Array) -> list[str]:
    """Return what the user said last, of each conversation."""
    return [question_of(messages_of(value)) for value in messages]


def _method(line: Line, asked: str) -> str:
    for name in line.train.candidates:
        if name not in METHODS:
            raise Problem(
                "G105",
                f"There is no candidate {name!r}.",
                where="train.candidates",
                why=f"This task has: {', '.join(METHODS)}.",
                tries=[f'candidates = ["{METHODS[0]}"]', "genba explain G105"],
            )
    return line.train.candidates[0] if line.train.candidates else asked
