"""The report of a demonstration: everything that was shown, and what was not."""

from collections.abc import Mapping
from typing import Any

from genba.core.codec import encode
from genba.core.values import Bill
from genba.targets.cost import bill
from genba.ui.demo.operators import Operator
from genba.ui.demo.play import Scene


def write_report(scene: Scene) -> dict[str, Any]:
    """Return the report as plain JSON data.

    Whatever the data did not show is null, with a sentence under `not_shown`.
    """
    results, first = scene.first.results, scene.first
    prepare, evaluate, optimize = (
        results.get(name, {}) for name in ("prepare", "evaluate", "optimize")
    )
    rejected = dict(prepare.get("rejected", {}))
    return {
        "line": scene.line.name,
        "data": {**scene.survey, "source": prepare.get("source")},
        "trained_on": {"rows_kept": prepare.get("rows"), "rejected": rejected},
        "gates": (evaluate.get("verdict") or {}).get("gates"),
        "measures": evaluate.get("measures"),
        "baselines": evaluate.get("baselines"),
        "engine": {"chosen": optimize.get("engine"), "measured": optimize.get("candidates")},
        "first": {"package": first.package, "model": first.model, "deployed": first.deployed},
        "promoted": _named(scene, scene.promoted),
        "drift": _drift(scene),
        "canary": dict(scene.canary.body) if scene.canary else None,
        "promotion": _promotion(scene),
        "in_production": _named(scene, scene.story.stable()),
        "feedback": [_operator(operator) for operator in scene.operators],
        "poisoned": _poisoned(scene),
        "drills": [drill.to_json() for drill in scene.drills],
        "runs": _runs(scene),
        "replay": {
            "predictions": scene.predictions,
            "failed_requests": scene.failed,
            "alarms": scene.alarms,
        },
        "trace": scene.trace or None,
        "bill": encode(total_bill(scene)),
        "status": scene.status or None,
        "server": {"url": scene.url, "pid": scene.pid},
        "seconds": scene.story.seconds,
        "story": [encode(happening) for happening in scene.story.happenings],
        "not_shown": not_shown(scene),
    }


def total_bill(scene: Scene) -> Bill:
    """Return what all runs and all predictions of the demonstration cost together."""
    seconds = cpu_seconds = 0.0
    for event in scene.story.events:
        if event.kind == "run.finished":
            seconds += float(event.body.get("seconds") or 0.0)
            cpu_seconds += float(event.body.get("cpu_seconds") or 0.0)
        if event.kind == "capture.created":
            packages: Mapping[str, Any] = event.body.get("packages") or {}
            served = sum(float(p.get("cpu_seconds") or 0.0) for p in packages.values())
            seconds += served
            cpu_seconds += served
    return bill(seconds, cpu_seconds)


def not_shown(scene: Scene) -> list[str]:
    """Say which parts of the loop this run's data did not show."""
    missing = {
        "The first model did not pass its gates, so nothing was deployed.": scene.first.deployed,
        "No drift was found in the replayed months.": bool(_drift(scene)),
        "No challenger was promoted.": scene.promoted,
        "No run was judged on poisoned labels.": scene.poisoned,
        "The run on poisoned labels was not refused.": scene.poisoned is None
        or scene.poisoned.body["outcome"] == "refused",
    }
    told = [sentence for sentence, shown in missing.items() if not shown]
    return told + [
        f"The drill {drill.name} ended without a rollback."
        for drill in scene.drills
        if not drill.rolled_back
    ]


def _named(scene: Scene, package: str | None) -> dict[str, Any] | None:
    if not package:
        return None
    manifest = scene.store.ledger.get("package", package) or {}
    return {"package": package, "model": manifest.get("model")}


def _promotion(scene: Scene) -> dict[str, Any] | None:
    if not scene.promoted:
        return None
    event = scene.story.find("deploy", having=lambda e: e.body["action"] == "promote")
    return dict(event.body) if event else None


def _drift(scene: Scene) -> list[dict[str, Any]]:
    """Return the first window in which each channel drifted."""
    first: dict[str, dict[str, Any]] = {}
    for event in scene.story.events:
        if event.kind == "watch":
            for finding in event.body.get("findings", ()):
                if finding.get("drifted") and finding["kind"] in ("input", "output"):
                    first.setdefault(str(finding["name"]), dict(finding))
    return list(first.values())


def _poisoned(scene: Scene) -> dict[str, Any] | None:
    if not scene.poisoned:
        return None
    body = scene.poisoned.body
    return {
        "run": body["run"],
        "outcome": body["outcome"],
        "reasons": body.get("stop", []),
        "label_noise": body.get("label_noise"),
    }


def _operator(operator: Operator) -> dict[str, Any]:
    return {
        "author": operator.name,
        "labels": operator.sent,
        "wrong_on_purpose": operator.mistaken,
        "outcomes": operator.outcomes,
    }


def _runs(scene: Scene) -> list[dict[str, Any]]:
    wanted = ("run", "reason", "outcome", "package", "stop", "seconds", "cpu_seconds")
    return [
        {name: event.body.get(name) for name in wanted}
        for event in scene.story.events
        if event.kind == "run.finished"
    ]
