"""The safety manifest: what is covered, by what, how well that is known, and what is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.protocols import JsonObject
from genba.edge.safety.answer import LAYERS, STATEMENT
from genba.edge.safety.plan import FORMAT, SafetyPlan
from genba.stages.assurance_clean import Clean
from genba.stages.assurance_limits import knob
from genba.stages.assurance_plan import Ground, Made, explained
from genba.stages.assurance_rows import in_words

SPIS: Final = (
    "trips_per_hour",
    "withheld_share",
    "abstain_share",
    "ood_p_mean",
    "by_layer",
    "by_cause",
)
_PATTERN: Final = (
    "the pattern of ASTM F3269 (run-time assurance); nobody has assessed it against that standard "
    "or any other"
)
_METHOD: Final = (
    "Faults put into real rows of the test set, which neither the model nor the envelope was "
    "fitted on; replayed through the envelope as a device runs it. Where there are alarms, half of "
    "the episodes hold one. Upper: one-sided 95 % by Clopper and Pearson."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a pass of assurance has found."""

    ground: Ground
    made: Made
    clean: Clean
    matrix: Sequence[Mapping[str, Any]]
    timing: JsonObject
    curve: JsonObject | None


def manifest_of(evidence: Evidence) -> dict[str, Any]:
    """Return the safety manifest as JSON."""
    ground, plan, matrix = evidence.ground, evidence.made.plan, list(evidence.matrix)
    false = _false_trips(ground, evidence.clean)
    failing = [row["cell"] for row in matrix if not row["holds"] and not row["accepted"]]
    if not false["holds"] and "false_trips" not in ground.line.safety.accept:
        failing.append("false_trips")
    return {
        **_head(plan),
        "odd": _odd(ground, plan, evidence),
        "hazards": _hazards(matrix),
        "monitors": _monitors(plan),
        "sensors": explained(evidence.made),
        "false_trips": false,
        "deadline": {
            "limit_ms": plan.timing.deadline_ms,
            "stated": bool(
                knob(ground.line, "deadline_ms") or ground.line.target.limits.latency_ms_p99
            ),
            **evidence.timing,
        },
        "fallback": _fallback(plan, matrix),
        "failure": {
            "is": f"{in_words(ground.decision)}, it is acted on, and no layer trips within "
            f"{plan.timing.react} readings of it",
            "method": _METHOD,
        },
        "matrix": matrix,
        "abstention": evidence.curve or "not measured: nobody has labelled what is right",
        "residual": _residual(matrix, false, plan),
        "accepted": list(ground.line.safety.accept),
        "failing": failing,
    }


def bare_manifest(line: Line, plan: SafetyPlan) -> dict[str, Any]:
    """Return the manifest of a package whose input no fault is known for, such as texts."""
    return {
        **_head(plan),
        "odd": {"task": line.task},
        "hazards": [],
        "monitors": _monitors(plan),
        "sensors": [],
        "false_trips": None,
        "deadline": None,
        "fallback": {"chain": list(plan.fallback.chain)},
        "failure": {"is": "not defined", "method": "no faults are injected into texts"},
        "matrix": [],
        "abstention": "not measured",
        "residual": [
            {"risk": "everything", "why": "The envelope checks the form of a text and the class.",
             "accepted": False}
        ],
        "accepted": list(line.safety.accept),
        "failing": [],
    }  # fmt: skip


def _head(plan: SafetyPlan) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "statement": STATEMENT,
        "pattern": _PATTERN,
        "line": plan.line,
        "package": plan.package,
        "plan": encode(plan),
        "spis": list(SPIS),
    }


def _odd(ground: Ground, plan: SafetyPlan, evidence: Evidence) -> JsonObject:
    """Say where the evidence holds: the operational design domain."""
    timing = plan.timing
    found: dict[str, Any] = {
        "rows": {"fitted_on": len(ground.train) + len(ground.calibrate)},
        "step_ms": timing.step_ms,
        "stale_ms": timing.stale_ms,
        "entities": list(ground.manifest.entities),
        "ranges": {
            c.name: {"low": c.low, "high": c.high, "declared": c.declared} for c in plan.channels
        },
    }
    if plan.picture is not None:
        found["image_sizes"] = [list(size) for size in plan.picture.sizes] or "any"
    if evidence.clean.readings:
        found["tried_on"] = evidence.clean.readings
    return found


def _hazards(matrix: Sequence[Mapping[str, Any]]) -> list[JsonObject]:
    """Name for every hazard the layers that noticed it, most often first, and how often."""
    return [
        {
            "hazard": row["cell"],
            "about": row["about"],
            "severity": row["severity"],
            "noticed": row["noticed"],
            "by": [f"{layer}: {LAYERS[layer]}" for layer in list(row["layers"])[:3]],
            "covered": row["holds"],
        }
        for row in matrix
    ]


def _monitors(plan: SafetyPlan) -> list[JsonObject]:
    found: list[JsonObject] = [
        {
            "layer": "schema",
            "checks": [f"{t.name} {t.datatype} {list(t.shape)}" for t in plan.inputs],
        }
    ]
    for c in plan.channels:
        found.append({"layer": "range", "sensor": c.name, "low": c.low, "high": c.high})
        if c.longest:
            found.append({"layer": "stuck", "sensor": c.name, "equal_readings": c.longest})
    timing = plan.timing
    found.append({"layer": "time", "stale_ms": timing.stale_ms, "ahead_ms": timing.ahead_ms})
    found.append({"layer": "deadline", "deadline_ms": timing.deadline_ms})
    found += [
        {"layer": "unusual", "on": u.on, "method": u.method, "p_value": u.alpha,
         "calibrated_on": u.pooled.count, "within": u.by or "all"}
        for u in plan.unusual
    ]  # fmt: skip
    if plan.plausible is not None:
        for c, cross, before, drift in zip(
            plan.channels, plan.plausible.cross, plan.plausible.before, plan.plausible.drift,
            strict=True,
        ):  # fmt: skip
            limits = {"cross": cross, "drift": drift, "predicted": before}
            found += [
                {"layer": "predicted" if kind == "predicted" else "cross", "kind": kind,
                 "sensor": c.name, "residual": value, "unit": "spreads"}
                for kind, value in limits.items()
                if value
            ]  # fmt: skip
    answers = plan.answers
    if answers.check_every:
        found.append({"layer": "model", "known_case_every": answers.check_every})
    for name in ("longest", "flood"):
        if value := getattr(answers, name):
            found.append({"layer": "model", "kind": name, "limit": value})
    if answers.margin or answers.floor:
        found.append({"layer": "abstain", "margin": answers.margin, "floor": answers.floor})
    if answers.most_step:
        found.append({"layer": "rate", "largest_step": answers.most_step})
    return found


def _false_trips(ground: Ground, clean: Clean) -> dict[str, Any]:
    limit = knob(ground.line, "false_trips", ground.view.modality)
    found = dict(clean.to_json())
    share = found["withheld"]
    holds = share is not None and share <= limit
    reason = (
        f"{share:.2%} of {clean.readings} clean test readings were withheld; at most "
        f"{limit:.2%} is allowed."
        if share is not None
        else "No clean test reading was found."
    )
    return {**found, "limit": limit, "holds": holds, "reason": reason}


def _fallback(plan: SafetyPlan, matrix: Sequence[Mapping[str, Any]]) -> JsonObject:
    return {
        "chain": list(plan.fallback.chain),
        "value": dict(plan.fallback.value),
        "rules": [
            {
                "without": name or "the model",
                "reads": list(rule.inputs),
                "agreement": rule.agreement,
                "agreement_is": "mean of alarms found and others not raised, calibration rows",
            }
            for name, rule in plan.fallback.rules.items()
        ],
        "stood_in": sum(row["stood_in"] for row in matrix),
        "stood_in_wrong": sum(row["stood_in_wrong"] for row in matrix),
    }


def _residual(
    matrix: Sequence[Mapping[str, Any]], false: Mapping[str, Any], plan: SafetyPlan
) -> list[JsonObject]:
    """List what is not covered, the worst first, and what nothing here can show."""
    rows = sorted((r for r in matrix if not r["holds"]), key=lambda r: -r["upper"])
    found: list[JsonObject] = [
        {
            "risk": row["cell"],
            "why": f"{row['failed']} of {row['episodes']} episodes failed unnoticed "
            f"({row['failed_without']} without the envelope){_ways(row)}",
            "accepted": row["accepted"],
        }
        for row in rows
    ]
    if not false["holds"]:
        found.append({"risk": "false_trips", "why": false["reason"], "accepted": False})
    if plan.timing.stale_ms is None:
        found.append(
            {"risk": "time", "why": "The rows have no clock and the line states no stale_ms, so "
             "late and missing readings are not noticed.", "accepted": False}
        )  # fmt: skip
    found.append(
        {"risk": "faults that are not in the matrix", "accepted": False,
         "why": "Two faults at once, slow drift of every sensor together, and whatever else nobody "
         "thought of were not tried."}
    )  # fmt: skip
    return found


def _ways(row: Mapping[str, Any]) -> str:
    if not row["missed"] and not row["raised"]:
        return ""
    return f": {row['missed']} hid an alarm, {row['raised']} raised one"
