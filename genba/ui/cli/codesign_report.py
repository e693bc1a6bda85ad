"""What a search found, as a person reads it: the choice, every point, the front, the cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from genba.codesign.plot import Axes, Dot, Mark, as_svg, in_characters
from genba.core.line import Line
from genba.core.values import Bill
from genba.ui.cli.answer import facts, heading, passed, table
from genba.ui.cli.figures import bill_facts, measure, number, seconds

_COLUMNS: Final = {  # of a point -> head of its column
    "cpu_ms": "CPU ms",
    "latency_ms_p99": "p99 ms",
    "memory_mib": "MiB",
    "size_mib": "size MiB",
    "energy_mj": "mJ",
}
_TOLD: Final = (  # of the choice
    *("cpu_ms", "latency_ms_p50", "latency_ms_p99", "rows_per_s", "memory_mib", "size_mib"),
    *("energy_mj", "energy_mj_per_correct", "cost_usd_per_1k", "right_decisions"),
)
_MEASURED: Final = ("measured", "verified")
_AXES: Final = Axes(x="CPU ms of one prediction", y="p99 latency of a call, ms")
_EVERYWHERE: Final = "…"
_LEGEND: Final = "  t threads, s streams, b rows of a call; latency is of a call, the rest of a row"


def blocks(line: Line, result: Mapping[str, Any], spent: Bill) -> list[RenderableType]:
    """Return the report, block by block."""
    points = result.get("candidates", [])
    found: list[RenderableType | None] = [
        _head(line, result),
        _choice(result),
        _constraints(result),
        _points(points),
        _plot(points),
        _left_out(points),
        _cost(result, spent),
    ]
    return [block for block in found if block is not None]


def picture(result: Mapping[str, Any], name: str) -> str:
    """Return the front as SVG."""
    title = f"{name} on {result.get('target', '')}: CPU time against latency"
    return as_svg(_dots(result.get("candidates", [])), _AXES, title)


def _head(line: Line, result: Mapping[str, Any]) -> RenderableType:
    place = f"{line.name} on {result['target']}"
    near, chosen = result.get("nearest"), result.get("choice")
    if near:
        return heading(f"{place}: infeasible; the nearest is {near['label']}", mark="no")
    if chosen is None or result.get("stop"):
        return heading(f"{place}: nothing can be chosen", mark="no")
    return heading(f"{place}: {chosen['label']}, by {result['prefer']}", mark="yes")


def _choice(result: Mapping[str, Any]) -> RenderableType | None:
    near = result.get("nearest")
    wanted = near["point"] if near else (result.get("choice") and _chosen(result)["id"])
    if not wanted:
        return facts([("", reason) for reason in result.get("stop", ())])
    point = next(p for p in result["candidates"] if p["id"] == wanted)
    pairs: list[tuple[str, RenderableType]] = []
    if near:
        pairs += [("misses", reason) for reason in near["misses"] or result.get("stop", ())]
        pairs += [("relax", " ".join(near["relax"]))] if near["relax"] else []
    found = {**point["expected"], **point["measures"]}
    pairs += [(name, measure(found[name])) for name in _TOLD if name in found]
    pairs += [("agrees", _alike(point))]
    pairs += [("misses by class", _classes(point))] if point["classes"] else []
    pairs += [("threshold", result["threshold"])] if result.get("threshold") else []
    pairs += [("known by", words) for words in (*_known(point, result), *point["notes"])]
    if point["batch"] > 1 and (alone := _alone(result["candidates"])):
        pairs.append(("one row a call", alone))
    return facts(pairs)


def _known(point: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Say where and how often the numbers were measured."""
    calls = (point["measures"].get("cpu_ms") or {}).get("n")
    if not calls or not result.get("search", {}).get("measured_there", True):
        return []
    load = point["measures"].get("load")
    busy = f", load average {load['value']:.1f}" if load else ""
    return [f"measured on {result['target']}: {calls:,} calls{busy}"]


def _alone(points: Sequence[Mapping[str, Any]]) -> str:
    """Return the best point for those who cannot wait for a batch; "" where none was measured."""
    single = [p for p in points if p["batch"] == 1 and p["measures"] and not p["refused"]]
    if not single:
        return ""
    best = min(single, key=lambda p: p["measures"]["cpu_ms"]["value"])
    return f"{_label(best)}: {measure(best['measures']['cpu_ms'])} of CPU time"


def _chosen(result: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(p for p in result["candidates"] if p["chosen"])


def _constraints(result: Mapping[str, Any]) -> RenderableType | None:
    rows: list[list[RenderableType]] = []
    for bound in result.get("constraints", []):
        found = bound["measure"]
        words = "at most" if bound["side"] == "max" else "at least"
        sure = "surely" if bound["sure"] else "the interval reaches across"
        rows.append(
            [
                passed(bool(bound["holds"])),
                bound["name"],
                "-" if found is None else measure(found),
                f"{words} {bound['limit']:g}",
                sure if found is not None and found.get("low") is not None else "one number",
            ]
        )
    if not rows:
        return None
    return table(["", "constraint", "is", "must be", "how sure"], rows)


def _points(points: Sequence[Mapping[str, Any]]) -> RenderableType | None:
    """Return a table of what was measured, or modelled where nothing could be."""
    shown = [p for p in points if p["measures"]]
    if not shown:
        return None
    shown.sort(key=lambda p: p["measures"].get("cpu_ms", {}).get("value", 0.0))
    shown_columns = [c for c in _COLUMNS if any(c in p["measures"] for p in shown)]
    rows: list[list[RenderableType]] = []
    for point in shown:
        rows.append(
            [
                _mark(point),
                _label(point),
                *(_number(point["measures"].get(c)) for c in shown_columns),
                _agreement(point),
            ]
        )
    heads = [_head_of(c, shown) for c in shown_columns]
    columns = ["", "point", *heads, "agrees"]
    shown_table = table(columns, rows, right=[*heads, "agrees"], whole=["point"])
    return Group(shown_table, Text(_LEGEND, style="dim"))


def _mark(point: Mapping[str, Any]) -> RenderableType:
    if point["chosen"]:
        return Text("●", style="green")
    if point["refused"]:
        return passed(False)
    return Text("○", style="blue") if point["front"] else Text("")


def _label(point: Mapping[str, Any]) -> str:
    """Return a point in a few characters: openvino bfloat16 t2 b8; see the legend of the table."""
    settings = dict(point["settings"])
    precision = settings.pop("precision", "")
    form = point["form"] if str(point["form"]).startswith(precision) else point["form"] or precision
    words = [point["engine"], form or precision]
    words += [f"{name[0]}{value}" for name, value in settings.items()]
    words += [f"b{point['batch']}"] if point["batch"] > 1 else []
    words += [f"({point['variant']})"] if point["variant"] else []
    return " ".join(word for word in words if word)


def _number(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else number(found["value"])


def _head_of(name: str, points: Sequence[Mapping[str, Any]]) -> str:
    found = [p["measures"][name] for p in points if name in p["measures"]]
    methods = {m.get("method", "measured") for m in found} - {"measured"}
    short = {"modelled": "mod.", "estimated": "est."}
    words = ", ".join(short.get(m, m) for m in sorted(methods))
    return f"{_COLUMNS[name]} ({words})" if methods else _COLUMNS[name]


def _agreement(point: Mapping[str, Any]) -> str:
    parity = point["parity"]
    return "-" if not parity else f"{100 * parity['decision_agreement']:.4g} %"


def _alike(point: Mapping[str, Any]) -> str:
    parity = point["parity"]
    if not parity:
        return "-"
    return f"{_agreement(point)} of {parity['samples']:,} decisions as the reference"


def _classes(point: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {found['missed']} of {found['samples']} (reference {found['missed_by_reference']})"
        for name, found in point["classes"].items()
    )


def _plot(points: Sequence[Mapping[str, Any]]) -> RenderableType | None:
    dots = _dots(points)
    lines = in_characters(dots, _AXES) if len(dots) > 1 else []
    return Text("\n".join(lines)) if lines else None


def _dots(points: Sequence[Mapping[str, Any]]) -> list[Dot]:
    dots = []
    for point in points:
        found = point["measures"]
        if "cpu_ms" not in found or "latency_ms_p99" not in found:
            continue
        mark: Mark = "measured"
        if point["chosen"]:
            mark = "chosen"
        elif point["refused"]:
            mark = "refused"
        elif point["front"]:
            mark = "front"
        x, y = found["cpu_ms"]["value"], found["latency_ms_p99"]["value"]
        dots.append(Dot(x=x, y=y, mark=mark, label=_label(point)))
    return dots


def _left_out(points: Sequence[Mapping[str, Any]]) -> RenderableType | None:
    """Return why points were not chosen, one line for each reason."""
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for point in points:
        if point["chosen"] or not point["refused"]:
            continue
        reason = " ".join(map(str, point["refused"]))
        reasons[reason] += 1
        examples.setdefault(reason, _label(point))
    if not reasons:
        return None
    pairs = []
    for reason, count in reasons.most_common():
        who = examples[reason] if count == 1 else f"{examples[reason]} {_EVERYWHERE}"
        pairs.append((f"{count} left out", f"{who}: {reason}"))
    return facts(pairs)


def _cost(result: Mapping[str, Any], spent: Bill) -> RenderableType:
    search = result.get("search", {})
    text = (
        f"{search.get('measurements', 0)} measurements of {search.get('offered', 0)} points, "
        f"{seconds(float(search.get('seconds', 0.0)))}"
    )
    if not search.get("measured_there", True):
        text += f"; nothing can be measured on {result['target']}: its numbers are modelled"
    pairs = [("search", text)]
    if search.get("model"):
        pairs.append(("model of the target", f"{search['model']} (back-tested)"))
    models = result.get("models", {})
    if len(models) > 1:
        told = (f"{name or 'as the line says'} {measure(m)}" for name, m in models.items())
        pairs.append(("right decisions", "; ".join(told)))
    if result.get("judged_later"):
        pairs.append(("judged by genba run", ", ".join(result["judged_later"])))
    return facts([*pairs, *bill_facts(spent)])
