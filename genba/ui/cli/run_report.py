"""What a run did, as a person reads it, from the rows that came in to the bill."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.resolve import resolve
from genba.data.fusion.said import sentence
from genba.stages.pipeline import RunOutcome
from genba.stages.without import sentences
from genba.ui.cli.answer import Answer, facts, heading, passed, table
from genba.ui.cli.figures import bill_facts, measure, number, seconds, short
from genba.ui.cli.measure_report import measures_report

EXIT_CODES: Final = {"done": 0, "refused": 1, "failed": 3, "cancelled": 130}
_BUDGET_SPENT: Final = 4  # refused, and with more minutes the answer may be another
_SHOWN_TRIALS: Final = 6
_SHOWN_LIST: Final = 8
_ENGINE_MEASURES: Final = {  # of one prediction at a time -> head of its column
    "latency_ms_p50": "p50 ms",
    "latency_ms_p99": "p99 ms",
    "memory_mib": "MiB",
    "energy_mj": "mJ",
}

_MEASURED: Final = "measured"  # the trial that holds how fast a training went
_TRAINING: Final = {  # what is told of it -> in these words
    "steps": "steps",
    "tokens": "tokens",
    "tokens_per_s": "tokens/s",
    "tokens_per_cpu_s": "tokens/CPU-s",
    "flops_per_cpu_s": "FLOP/CPU-s",
    "share_of_peak": "of the measured peak",
}

Results = Mapping[str, Mapping[str, Any]]


def report(line: Line, outcome: RunOutcome, *, again: str, production: str | None = None) -> Answer:
    """Return the answer of `genba run`.

    Args:
        line: The line that ran.
        outcome: What came of it.
        again: What the user typed to name the line.
        production: The package in production now.
    """
    results = outcome.results if outcome.outcome != "cancelled" else {}
    blocks: list[RenderableType | None] = [
        _headline(line, outcome, production),
        _data(results.get("prepare", {}), line.task),
        _derived(results),
        _trials(results.get("train", {})),
        _training(results.get("train", {})),
        measures_report(results.get("evaluate", {})),
        _without(results.get("evaluate", {})),
        _gates(results.get("evaluate", {})),
        _comparisons(results.get("evaluate", {})),
        _engines(results.get("optimize", {})),
        _refused(results.get("optimize", {})),
        _closing(outcome),
    ]
    return Answer(
        data=_data_for_programs(line, outcome),
        blocks=[block for block in blocks if block is not None],
        next=_next(line, outcome, again),
        exit_code=_exit_code(outcome),
    )


def _exit_code(outcome: RunOutcome) -> int:
    spent = outcome.results.get("train", {}).get("budget_spent")
    if outcome.outcome == "refused" and spent:
        return _BUDGET_SPENT
    return EXIT_CODES[outcome.outcome]


def _data_for_programs(line: Line, outcome: RunOutcome) -> dict[str, Any]:
    stages = [
        {"name": s.name, "reused": s.reused, "seconds": s.seconds, "cpu_seconds": s.cpu_seconds}
        for s in outcome.stages
    ]
    return {
        "line": line.name,
        "run": outcome.run,
        "outcome": outcome.outcome,
        "deployed": outcome.deployed,
        "package": outcome.package,
        "model": outcome.model,
        "stop": list(outcome.stop),
        "stages": stages,
        "bill": encode(outcome.bill),
        "results": {name: dict(result) for name, result in outcome.results.items()},
    }


def _headline(line: Line, outcome: RunOutcome, production: str | None) -> RenderableType:
    if outcome.outcome == "refused":
        title = heading(f"{line.name} stopped: the answer is no", mark="no")
        return Text("\n").join([title, *(Text(f"    {reason}") for reason in outcome.stop)])
    if outcome.outcome == "cancelled":
        return heading(f"{line.name} was interrupted; what was finished is kept", mark="wait")
    if outcome.outcome != "done":
        why = "; ".join(outcome.stop)
        return heading(f"{line.name} {outcome.outcome}{f': {why}' if why else ''}", mark="no")
    package = short(outcome.package or "")
    if outcome.deployed:
        return heading(f"{line.name} has its first package, {package}, in production", mark="yes")
    if outcome.package == production and all(s.reused for s in outcome.stages):
        return heading(f"{line.name}: nothing has changed, all of it was reused", mark="yes")
    if outcome.package == production:
        return heading(f"{line.name}: the same package again, {package}, in production", mark="yes")
    return heading(f"{line.name} has a new package, {package}; every gate passed", mark="yes")


def _data(prepare: Mapping[str, Any], task: str) -> RenderableType | None:
    if not prepare:
        return None
    source = prepare.get("source", {})
    rejected = prepare.get("rejected", {})
    out = sum(rejected.values())
    kind = {"image": "images"}.get(resolve("task", task).modality, "rows")
    pairs = [
        ("data", f"{number(prepare['rows'])} {kind} kept, {number(out)} rejected"),
        *(("", f"{number(n)} {reason}") for reason, n in sorted(rejected.items(), key=_most)),
    ]
    count = prepare.get("entities") or 1
    if count != 1:
        names = count if isinstance(count, Sequence) else [count]
        pairs.append(("entities", ", ".join(map(str, names[:8])) + ("…" if len(names) > 8 else "")))
    if source.get("location"):
        pairs.append(("source", f"{source['location']}"))
        if source.get("generated"):  # in part or all of it: whoever made it says what
            made = source.get("attribution") or "generated by a program, not measured"
            pairs.append(("generated", str(made)))
        pairs.append(("licence", str(source.get("licence", "not stated"))))
    joined = (prepare.get("joined") or {}).items()
    pairs += [("" if i else "joined", sentence(*found)) for i, found in enumerate(joined)]
    return facts(pairs)


def _without(evaluated: Mapping[str, Any]) -> RenderableType | None:
    """Say how good the model is when a sensor is missing, the one that is missed most first."""
    told = sentences(evaluated.get("without") or {})
    shown = [*told[:_SHOWN_LIST], *([f"and {len(told) - _SHOWN_LIST} more: --json"])]
    shown = shown if len(told) > _SHOWN_LIST else told
    return (
        facts([("" if i else "one missing", text) for i, text in enumerate(shown)])
        if told
        else None
    )


def _most(item: tuple[str, int]) -> int:
    return -item[1]


def _derived(results: Results) -> RenderableType | None:
    found = {
        key: value
        for stage in ("prepare", "train")
        for key, value in (results.get(stage, {}).get("derived") or {}).items()
        if not _says_nothing(value)
    }
    if not found:
        return None
    lines = [f"{key} = {_plain(value)}" for key, value in found.items()]
    return facts([("derived", Text("\n".join(lines)))])


def _says_nothing(value: Any) -> bool:
    """Limits by sensor, most of them open, come from the checks of the line; nobody reads them."""
    return value in (None, "", [], {}) or (isinstance(value, list) and None in value)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, Mapping) and {"value", "because"} <= set(value):
        return (
            f"{_plain(value['value'])} {value.get('unit', '')}".strip() + f" ({value['because']})"
        )
    if isinstance(value, Mapping):
        return ", ".join(_word(k, v) for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(_plain(v) for v in value[:_SHOWN_LIST])
        return f"{shown}, … ({len(value)})" if len(value) > _SHOWN_LIST else shown
    return str(value)


def _word(name: str, value: Any) -> str:
    """A word says what it is by itself (`float32`); figures do not (`8 16`)."""
    if isinstance(value, list) and len(value) > _SHOWN_LIST:  # a table for programs
        return f"{len(value)} {name}"
    told = isinstance(value, str) and value[:1].isalpha()
    return value if told else f"{name} {_plain(value)}"


def _trials(train: Mapping[str, Any]) -> RenderableType | None:
    known = (t for t in train.get("trials") or [] if isinstance(t, Mapping))
    trials = [t for t in known if _MEASURED not in t]
    if not trials:
        return None
    whole = max(trials, key=len)
    numbers = [k for k, v in whole.items() if isinstance(v, (int, float))]
    names = [k for k, v in whole.items() if isinstance(v, str)]
    columns = [*names, *numbers, *(k for k, v in whole.items() if isinstance(v, Mapping))]
    if "loss" in columns:
        trials.sort(key=lambda trial: float(trial.get("loss", math.inf)))
    rows = [[_plain(trial.get(c, "")) for c in columns] for trial in trials[:_SHOWN_TRIALS]]
    more = len(trials) - len(rows)
    if more > 0:
        rows.append([f"and {more} more", *("" for _ in columns[1:])])
    return table(columns, rows, right=numbers)


def _training(train: Mapping[str, Any]) -> RenderableType | None:
    """Return how fast a training went, where the task says so."""
    trials = (t for t in train.get("trials") or [] if isinstance(t, Mapping))
    found: Mapping[str, Any] = next((t[_MEASURED] for t in trials if _MEASURED in t), {})
    told = ((unit, found.get(name)) for name, unit in _TRAINING.items())
    words = [f"{number(value)} {unit}" for unit, value in told if isinstance(value, (int, float))]
    return facts([("training", ", ".join(words))]) if words else None


def _gates(evaluated: Mapping[str, Any]) -> RenderableType | None:
    gates = (evaluated.get("verdict") or {}).get("gates", [])
    if not gates:
        return None
    rows = [[passed(g["passed"]), g["name"], measure(g["measure"]), g["limit"]] for g in gates]
    return table(["", "gate", "measured", "must be"], rows)


def _comparisons(evaluated: Mapping[str, Any]) -> RenderableType | None:
    comparisons = evaluated.get("comparisons", [])
    if not comparisons:
        return None
    rows = [[passed(not c["worse"]), c["where"], c["reason"]] for c in comparisons]
    return table(["", "against the champion on", ""], rows)


def _engines(optimized: Mapping[str, Any]) -> RenderableType | None:
    """The candidates side by side; intervals and everything else are in the JSON."""
    candidates = [c for c in optimized.get("candidates", []) if c.get("measures")]
    if not candidates:
        return None
    chosen = optimized.get("engine") or {}
    shown = [m for m in _ENGINE_MEASURES if any(m in c["measures"] for c in candidates)]
    rows: list[list[RenderableType]] = []
    for candidate in candidates:
        mine = (candidate["engine"], candidate["settings"])
        is_chosen = mine == (chosen.get("name"), chosen.get("settings"))
        measures = candidate["measures"]
        mark = Text("●", style="green") if is_chosen else passed(not candidate.get("refused"))
        rows.append(
            [
                mark if is_chosen or candidate.get("refused") else Text(""),
                f"{candidate['engine']}  {_plain(candidate['settings'])}",
                *(number(measures[m]["value"]) if m in measures else "-" for m in shown),
                _agreement(candidate),
            ]
        )
    heads = [_engine_head(name, candidates) for name in shown]
    return table(["", "engine", *heads, "agrees"], rows, right=[*heads, "agrees"])


def _engine_head(name: str, candidates: Sequence[Mapping[str, Any]]) -> str:
    measures = (c["measures"][name] for c in candidates if name in c["measures"])
    methods = {m.get("method", "measured") for m in measures} - {"measured"}
    head = _ENGINE_MEASURES[name]
    return f"{head} ({', '.join(sorted(methods))})" if methods else head


def _agreement(candidate: Mapping[str, Any]) -> str:
    agreement = (candidate.get("parity") or {}).get("decision_agreement")
    return "-" if agreement is None else f"{100 * agreement:.4g} %"


def _refused(optimized: Mapping[str, Any]) -> RenderableType | None:
    pairs = []
    for candidate in optimized.get("candidates", []):
        reasons = candidate.get("refused") or ()
        if reasons:
            name = f"{candidate['engine']} {_plain(candidate['settings'])}"
            pairs.append(("refused", f"{name}: {' '.join(map(str, reasons))}"))
    return facts(pairs) if pairs else None


def _closing(outcome: RunOutcome) -> RenderableType:
    done = [f"{s.name} {'reused' if s.reused else seconds(s.seconds)}" for s in outcome.stages]
    pairs = [("run", outcome.run), ("stages", " · ".join(done))]
    if outcome.model:
        pairs.append(("model", short(outcome.model)))
    if outcome.package:
        pairs.append(("package", short(outcome.package)))
    if outcome.results.get("train", {}).get("budget_spent"):
        pairs.append(("budget", "the minutes ended before the search did; more may find better"))
    return facts([*pairs, *bill_facts(outcome.bill)])


def _next(line: Line, outcome: RunOutcome, again: str) -> tuple[str, ...]:
    if outcome.outcome == "cancelled":
        return (f"genba run {again}",)
    if outcome.outcome == "refused":
        return (f"genba run {again} --set train.budget.minutes={2 * line.train.budget.minutes:g}",)
    if outcome.outcome == "failed":
        return ("genba status", "genba doctor")
    if outcome.deployed:
        return ("genba up", f"genba trace {short(outcome.package or '')}")
    return ("genba up", f"genba status {line.name}")
