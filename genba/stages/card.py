"""The model card: what a package is for, what it was made from, how good it is and where it ends.

Every field says how it is known: "measured" by a stage, "declared" by the line file or the
source, or "derived" by Genba from both.
"""

from typing import Any, Literal

from genba.core.codec import encode
from genba.core.protocols import Model
from genba.core.values import EngineChoice
from genba.runs.stage import StageContext

Known = Literal["measured", "declared", "derived"]


def model_card(context: StageContext, model: Model, choice: EngineChoice) -> dict[str, Any]:
    """Return the card as JSON.

    Args:
        context: Of the package stage; the results of the stages before are the evidence.
        model: The model.
        choice: The engine it was measured with.
    """
    line, inputs = context.line, context.inputs
    prepared, optimized = inputs["prepare"], inputs["optimize"]
    data = line.data
    reads = ", ".join(data.inputs) or "every numeric column"
    chosen = next(
        c
        for c in optimized["candidates"]
        if (c["engine"], c["settings"]) == (choice.name, dict(choice.settings))
    )
    return {
        "name": _field(line.name, "declared"),
        "purpose": _field(
            f"{line.task}: {data.output} from {reads}" if data.output else f"{line.task}: {reads}",
            "declared",
        ),
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
            "outside": _field(
                "The measures hold for rows like those of the test set. Values outside the checks "
                "count as missing. The model is no safety function: the machine's own protection "
                "stays in force.",
                "declared",
            ),
        },
    }


def _field(value: Any, how: Known) -> dict[str, Any]:
    return {"value": value, "how": how}
