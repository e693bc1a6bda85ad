"""The model card: what a package is for, what it was made from, how good it is and where it ends.

Every field says how it is known: "measured" by a stage, "declared" by the line file or the
source, or "derived" by Genba from both.
"""

from typing import Any, Literal

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.task import Model
from genba.core.values import ROLES, EngineChoice, Signature, Tensor
from genba.runs.stage import StageContext

Known = Literal["measured", "declared", "derived"]


def model_card(
    context: StageContext, model: Model, signature: Signature, choice: EngineChoice
) -> dict[str, Any]:
    """Return the card as JSON.

    Args:
        context: Of the package stage; the results of the stages before are the evidence.
        model: The model.
        signature: What its package takes and gives.
        choice: The engine it was measured with.
    """
    line, inputs = context.line, context.inputs
    prepared, optimized = inputs["prepare"], inputs["optimize"]
    data = line.data
    chosen = next(
        c
        for c in optimized["candidates"]
        if (c["engine"], c["settings"]) == (choice.name, dict(choice.settings))
    )
    return {
        "name": _field(line.name, "declared"),
        "purpose": _field(_purpose(line, model, signature), "declared"),
        "takes": _field([_tensor(t) for t in signature.inputs], "derived"),
        "answers": _field([_tensor(t) for t in signature.outputs], "derived"),
        "data": {
            "dataset": _field(prepared["dataset"], "measured"),
            "source": _field(data.source, "declared"),
            "facts": _field(prepared.get("source", {}), "declared"),
            "rows": _field(prepared["rows"], "measured"),
            "rejected": _field(prepared.get("rejected", {}), "measured"),
            "entities": _field(prepared.get("entities"), "measured"),
            "sheet": _field(prepared.get("sheet"), "measured"),
        },
        "model": {
            "id": _field(inputs["train"]["model"], "measured"),
            "candidate": _field(model.candidate, "derived"),
            "trials": _field(len(model.trials), "measured"),
            "settings": _field(encode(model.settings), "derived"),
        },
        "measures": _field(optimized["reevaluated"], "measured"),
        "gates": _field(optimized["verdict"], "measured"),
        "without": _field(inputs["evaluate"].get("without") or {}, "measured"),
        "label_noise": _field(inputs["evaluate"].get("label_noise"), "measured"),
        "runtime": {
            "engine": _field(encode(choice), "measured"),
            "machine": _field(optimized["machine"], "measured"),
            "measures": _field(chosen["measures"], "measured"),
            "parity": _field(chosen["parity"], "measured"),
        },
        "limits": {
            "target": _field(encode(line.target), "declared"),
            "checks": _field(encode(data.checks), "declared"),
            "outside": _field(_outside(signature), "declared"),
        },
    }


def _purpose(line: Line, model: Model, signature: Signature) -> str:
    """Say in a sentence what goes in and what comes out."""
    sensors = ", ".join(map(str, model.settings.get("sensors") or line.data.inputs))
    reads = "images" if _roles(signature) & {"image"} else sensors or "what the line names"
    gives = line.data.output or ", ".join(t.name for t in signature.outputs)
    return f"{line.task}: {gives} from {reads}"


def _outside(signature: Signature) -> str:
    if "image" in _roles(signature):
        like = (
            "images like those of the test set: the same parts, camera, position and light. "
            "Another camera or lamp is another line."
        )
    else:
        like = "rows like those of the test set. Values outside the checks count as missing."
    return (
        f"The measures hold for {like} The model is no safety function: the machine's own "
        "protection stays in force."
    )


def _roles(signature: Signature) -> set[str]:
    return {t.role for t in signature.inputs}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {**encode(tensor), "means": ROLES.get(tensor.role, "")}


def _field(value: Any, how: Known) -> dict[str, Any]:
    return {"value": value, "how": how}
