"""A trace as a person reads it, from the prediction down to the joules."""

import shlex
from collections.abc import Mapping
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from genba.core.codec import decode
from genba.core.values import Bill
from genba.ui.cli import trace_rested
from genba.ui.cli.answer import facts, heading, passed, table
from genba.ui.cli.figures import bill_facts, measure, moment, number, seconds, short, when
from genba.ui.cli.line_report import bounds
from genba.ui.cli.trace_taught import told
from genba.ui.cli.trace_values import answers, given
from genba.ui.cli.trace_why import explained

_SHOWN_SEGMENTS: Final = 6

Pairs = list[tuple[str, RenderableType]]


def blocks(thing: str, found: Mapping[str, Any]) -> list[RenderableType]:
    """Return the blocks of a trace, nearest to the prediction first."""
    shown: list[RenderableType] = [heading(f"Where {short(thing)} comes from")]
    for name, pairs in (
        ("prediction", _prediction(found)),
        ("package", _package(found)),
        ("model", _model(found)),
        ("run", _run(found)),
    ):
        if pairs:
            shown += [Text(name, style="bold"), facts(pairs)]
        if name == "prediction" and "explanation" in found:
            shown += [Text("why", style="bold"), *explained(found["explanation"])]
        if name == "prediction" and found.get("taught"):
            shown += [Text("learned from people", style="bold"), *told(found["taught"])]
        if name == "prediction" and found.get("rested_on"):
            shown += [Text("rests on", style="bold"), *trace_rested.told(found["rested_on"])]
    for dataset in found.get("datasets", []):
        shown += [Text("dataset", style="bold"), facts(_dataset(dataset)), _segments(dataset)]
    return shown


def next_commands(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what one may want to type after a trace."""
    steps = []
    if "prediction" in found:
        asked = found["prediction"]
        settings = (found.get("package") or {}).get("settings") or {}
        words = [shlex.quote(str(word)) for word in settings.get("corrections") or ()]
        told = f"--prediction {asked['id']} --value {words[0] if words else 'VALUE'}"
        steps.append(f"genba feedback {asked['line']} {told}")
        if "explanation" not in found:
            steps.append(f"genba trace {asked['id']} --explain")
    if found.get("datasets"):
        steps.append(f"genba data {short(found['datasets'][0]['id'])}")
    return tuple(steps) or ("genba models",)


def _prediction(found: Mapping[str, Any]) -> Pairs:
    asked = found.get("prediction")
    if not asked:
        return []
    at = "" if asked["time"] is None else f" at {when(asked['time'])}"
    pairs: Pairs = [
        ("id", asked["id"]),
        ("answered", f"{moment(asked['received_ms'])} as {asked['role']}, {asked['status']}"),
        ("about", f"{asked['entity'] or 'no entity given'}{at}"),
        ("took", seconds(asked["latency_us"] / 1e6)),
        *_not_kept(asked),
        *given(asked["values"], found.get("package") or {}),
        *answers(asked["values"], found.get("package") or {}),
        ("captured in", f"{asked['capture']}, blob {short(asked['blob'])}"),
    ]
    bill = decode(Bill, asked["bill"])
    pairs.append(("energy", measure(bill.joules)))
    for row in found.get("feedback", []):
        said = row.get("value") or row.get("comment", "")
        pairs.append(("feedback", f"{said} by {row.get('author') or 'nobody'}: {row['status']}"))
    return pairs


def _not_kept(asked: Mapping[str, Any]) -> Pairs:
    """Say that a line does not keep what it is given, and what trace of the request there is."""
    pairs: Pairs = []
    if asked.get("trace"):
        pairs.append(("asked in", f"trace {asked['trace']}"))
    if asked.get("inputs", "all") != "all":
        digest = asked.get("inputs_sha256")
        said = f"; their SHA-256 is {digest}" if digest else ""
        pairs.append(("inputs", f"not kept, as the line says{said}"))
    return pairs


def _package(found: Mapping[str, Any]) -> Pairs:
    package = found.get("package")
    if not package:
        return []
    engine = package.get("engine") or {}
    settings = ", ".join(f"{k} {v}" for k, v in (engine.get("settings") or {}).items())
    pairs: Pairs = [
        ("id", short(package["id"])),
        ("line", f"{package['line']} ({package['task']})"),
        ("made", moment(package["made_ms"])),
        ("engine", f"{engine.get('name')} {settings}".strip()),
    ]
    for tensor in (package.get("signature") or {}).get("inputs", []):
        shape = " x ".join("any" if n < 0 else str(n) for n in tensor["shape"])
        pairs.append(("takes", f"{tensor['name']}, {tensor['datatype']}, {shape}"))
    if sensors := (package.get("settings") or {}).get("sensors"):
        pairs.append(("sensors", ", ".join(map(str, sensors))))
    for name, file in (package.get("files") or {}).items():
        pairs.append(("file", f"{name}  {short(file['digest'])}, {number(file['size'])} bytes"))
    for gate in (package.get("verdict") or {}).get("gates", []):
        text = f" {gate['name']} {measure(gate['measure'])}, must be {gate['limit']}"
        pairs.append(("gate", Text.assemble(passed(gate["passed"]), text)))
    return pairs


def _model(found: Mapping[str, Any]) -> Pairs:
    model = found.get("model")
    if not model:
        return []
    pairs: Pairs = [("id", short(model["id"])), ("made", moment(model["made_ms"]))]
    if model.get("candidate"):
        pairs.append(("kind", f"{model['candidate']}, best of {len(model.get('trials') or [])}"))
    return pairs


def _run(found: Mapping[str, Any]) -> Pairs:
    run = found.get("run")
    if not run:
        return []
    pairs: Pairs = [
        ("id", f"{run['id']}  {run['outcome'] or 'not finished'}"),
        ("started", f"{moment(run['started_ms'])}, because: {run['reason']}"),
        ("seed", str(run["seed"] if run["seed"] is not None else 0)),
    ]
    for stage in run["stages"]:
        where = f", done in {stage['done_in']}" if stage.get("done_in") else ""
        took = seconds(float(stage.get("seconds") or 0.0))
        key = f"key {short(str(stage['key']))}"
        pairs.append((str(stage["stage"]), f"{took}, {key}{where}"))
    for column, check in (run["checks"] or {}).items():
        limits = bounds(check.get("min"), check.get("max"))
        pairs.append(("check", f"{column} {limits}"))
    pairs += _code(run.get("code") or {})
    machine = run.get("machine") or {}
    if machine:
        fast = " ".join(machine.get("instructions") or ())
        cores = number(float(machine.get("cores") or 0))
        pairs.append(("machine", f"{machine.get('processor')}, {cores} cores, {fast}"))
    return [*pairs, *bill_facts(decode(Bill, run["bill"]))]


def _code(code: Mapping[str, Any]) -> Pairs:
    if not code:
        return []
    commit = f", on commit {short(code['revision'])}" if code["revision"] else ""
    libraries = ", ".join(f"{name} {version}" for name, version in code["libraries"].items())
    return [
        ("code", f"Genba {code['genba']}, source {short(code['source'])}{commit}"),
        ("python", code["python"]),
        ("libraries", libraries),
    ]


def _dataset(dataset: Mapping[str, Any]) -> Pairs:
    source = dataset.get("source") or {}
    pairs: Pairs = [
        ("id", short(dataset["id"])),
        ("rows", number(dataset.get("rows") or 0)),
        *(
            ("rejected" if i == 0 else "", f"{number(n)} {reason}")
            for i, (reason, n) in enumerate(
                sorted(dataset["rejected"].items(), key=lambda item: -item[1])
            )
        ),
    ]
    for name in ("location", "licence", "attribution", "fingerprint"):
        if source.get(name):
            pairs.append((name, short(str(source[name]))))
    if source.get("generated"):
        pairs.append(("generated", "yes: by a program, not measured in the world"))
    if dataset.get("parent"):
        pairs.append(("made from", short(str(dataset["parent"]))))
    return pairs


def _segments(dataset: Mapping[str, Any]) -> RenderableType:
    rows = [
        [short(s["digest"]), s["origin"], number(s["rows"]), _rows(s)]
        for s in dataset["segments"][:_SHOWN_SEGMENTS]
    ]
    more = len(dataset["segments"]) - _SHOWN_SEGMENTS
    if more > 0:
        rows.append([f"and {more} more", "", "", ""])
    return table(["segment", "origin", "rows", "row ids"], rows, right=("rows",))


def _rows(segment: Mapping[str, Any]) -> str:
    if segment.get("first_row") is None:
        return "-"
    return f"{segment['first_row']} to {segment['last_row']}"
