"""What is in a release, as a bill of materials for machine learning: CycloneDX 1.6, JSON.

Every value says how it is known: in `properties`, `genba:how:NAME` is measured, declared, derived
or modelled. What nobody knows, such as who delivered the electricity, is left out.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from genba import __version__
from genba.core.digest import digest_bytes
from genba.core.values import Bill, Measure
from genba.edge.package import LoadedPackage
from genba.edge.release import Statement

_SPEC: Final = "1.6"
_MODEL, _DATASET, _ENGINE, _RUNTIME = "model", "dataset", "engine", "runtime"
_JOULES_PER_KWH: Final = 3.6e6
_GRAMS_PER_TONNE: Final = 1e6
_MILLI: Final = 1e-3

Card = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Materials:
    """Everything a bill of materials is written from."""

    package: LoadedPackage
    statement: Statement
    card: Card  # of the package
    wheel: bytes
    engine_version: str
    training: Bill | None  # of the run that made the package; None where it was not recorded


def bill_of_materials(found: Materials) -> dict[str, Any]:
    """Return the bill of materials of a release."""
    stated = found.statement
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"genba:{stated.package}:{stated.release}")
    made = datetime.fromtimestamp(stated.made_ms // 1_000, tz=UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": _SPEC,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": made.isoformat().replace("+00:00", "Z"),
            "tools": {
                "components": [{"type": "application", "name": "genba", "version": __version__}]
            },
            "component": _model(found),
        },
        "components": [_dataset(found), _engine(found), _runtime(found)],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [_DATASET, _ENGINE]},
            {"ref": _RUNTIME, "dependsOn": [_ENGINE]},
        ],
    }


def _model(found: Materials) -> dict[str, Any]:
    stated, card = found.statement, found.card
    files = [
        {"type": "file", "name": name, "hashes": [_hash(file.digest)]}
        for name, file in sorted(found.package.manifest.files.items())
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": stated.line,
        "version": str(stated.release),
        "description": _value(card, "purpose"),
        "hashes": [_hash(stated.package)],
        "components": files,
        "modelCard": _model_card(found),
        "properties": _properties(
            {
                "genba:package": stated.package,
                "genba:model": found.package.manifest.model,
                "genba:run": found.package.manifest.run,
                "genba:target": stated.target,
                "genba:standing": stated.standing,
                "genba:engine": stated.engine.name,
                **{f"genba:engine:{k}": v for k, v in stated.engine.settings.items()},
            }
        ),
    }


def _model_card(found: Materials) -> dict[str, Any]:
    card, signature = found.card, found.package.manifest.signature
    measures: Mapping[str, Measure] = found.statement.measures
    metrics = [_metric(name, m) for name, m in sorted(_value(card, "measures").items())]
    metrics += [_metric(name, _plain(m), "runtime") for name, m in sorted(measures.items())]
    energy = _energy(found)
    return {
        "modelParameters": {
            "task": found.package.manifest.task,
            "modelArchitecture": str(_value(card, "model", "candidate")),
            "datasets": [{"ref": _DATASET}],
            "inputs": [
                {"format": f"{t.name} {t.datatype} {list(t.shape)}"} for t in signature.inputs
            ],
            "outputs": [
                {"format": f"{t.name} {t.datatype} {list(t.shape)}"} for t in signature.outputs
            ],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {
            "useCases": [_value(card, "purpose")],
            "technicalLimitations": [_value(card, "limits", "outside")],
            **({"environmentalConsiderations": {"energyConsumptions": energy}} if energy else {}),
        },
        "properties": _how(card, measures),
    }


def _how(card: Card, measures: Mapping[str, Measure]) -> list[dict[str, str]]:
    """Return how every value is known: of metrics one by one, of the rest as the card says."""
    known = {f"metric:{name}": m["method"] for name, m in _value(card, "measures").items()}
    known |= {f"runtime:{name}": m.method for name, m in measures.items()}
    for path in (("purpose",), ("model", "candidate"), ("data", "rows"), ("data", "source"),
                 ("data", "facts"), ("limits", "outside")):  # fmt: skip
        known[".".join(path)] = _entry(card, *path)["how"]
    return _properties({f"genba:how:{name}": how for name, how in sorted(known.items())})


def _metric(name: str, measure: Mapping[str, Any], slice: str = "test set") -> dict[str, Any]:
    unit = f" ({measure['unit']})" if measure.get("unit") else ""
    metric: dict[str, Any] = {
        "type": f"{name}{unit}",
        "value": repr(measure["value"]),
        "slice": slice,
    }
    if measure.get("low") is not None and measure.get("high") is not None:
        ends = {"lowerBound": repr(measure["low"]), "upperBound": repr(measure["high"])}
        metric["confidenceInterval"] = ends
    return metric


def _energy(found: Materials) -> list[dict[str, Any]]:
    spent = []
    if found.training is not None:
        joules, carbon = found.training.joules, found.training.carbon_g
        spent.append(
            {
                **_consumption("training", joules, 1.0, "of the whole run"),
                "co2CostEquivalent": {"value": carbon.value / _GRAMS_PER_TONNE, "unit": "tCO2eq"},
            }
        )
    one = found.statement.measures.get("energy_mj")
    if one is not None:
        spent.append(_consumption("inference", one, _MILLI, "of one prediction"))
    return spent


def _consumption(activity: str, measure: Measure, joules: float, scope: str) -> dict[str, Any]:
    ends = {"low": measure.low, "high": measure.high}
    return {
        "activity": activity,
        "energyProviders": [],  # nobody told the factory who they are
        "activityEnergyCost": {"value": measure.value * joules / _JOULES_PER_KWH, "unit": "kWh"},
        "properties": _properties(
            {
                "genba:how": measure.method,
                "genba:scope": scope,
                **{f"genba:{k}_J": v * joules for k, v in ends.items() if v is not None},
            }
        ),
    }


def _dataset(found: Materials) -> dict[str, Any]:
    card = found.card
    facts = _value(card, "data", "facts") or {}
    licence = str(facts.get("licence") or "not stated")
    attribution = str(facts.get("attribution") or "")
    data: dict[str, Any] = {
        "type": "dataset",
        "name": str(_value(card, "data", "source")),
        "contents": {
            "properties": _properties(
                {
                    "genba:rows": _value(card, "data", "rows"),
                    "genba:entities": _value(card, "data", "entities"),
                    "genba:sheet:sha256": _value(card, "data", "sheet"),
                    "genba:fingerprint": facts.get("fingerprint"),
                    "genba:generated": facts.get("generated"),
                }
            )
        },
    }
    if attribution:
        data["governance"] = {"owners": [{"organization": {"name": attribution}}]}
    return {
        "type": "data",
        "bom-ref": _DATASET,
        "name": str(_value(card, "data", "source")),
        "version": found.package.manifest.dataset,
        "licenses": [{"license": {"name": licence}}],
        "data": [data],
        "properties": _properties({"genba:how:licence": _entry(card, "data", "facts")["how"]}),
    }


def _engine(found: Materials) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": _ENGINE,
        "name": found.statement.engine.name,
        "version": found.engine_version,
        "properties": _properties({"genba:how:version": "measured"}),
    }


def _runtime(found: Materials) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": _RUNTIME,
        "name": "genba-edge",
        "version": __version__,
        "hashes": [_hash(digest_bytes(found.wheel))],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }


def _entry(card: Card, *path: str) -> dict[str, Any]:
    found: Any = card
    for name in path:
        found = found.get(name, {})
    return {"value": None, "how": "unknown", **found}


def _value(card: Card, *path: str) -> Any:
    value = _entry(card, *path)["value"]
    return {} if value is None and path[-1] == "measures" else value


def _plain(measure: Measure) -> dict[str, Any]:
    return {name: getattr(measure, name) for name in ("value", "unit", "low", "high", "method")}


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _properties(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> list[dict[str, str]]:
    """Return names and values as text; what nobody knows is left out."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return [{"name": k, "value": _text(v)} for k, v in pairs if v is not None]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)
