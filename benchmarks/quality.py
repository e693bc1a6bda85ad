"""What the leaderboard says about quality: images, forecasts and remaining life beside peers."""

from collections.abc import Iterator, Mapping
from typing import Any

Report = Mapping[str, Any]
_SHOWN = ("rmse", "cost_per_unit", "missed_failures")


def speed(report: Report) -> Iterator[str]:
    """Yield what one image costs against the same network in eager torch."""
    yield "## One image, against the same network in eager torch"
    yield ""
    yield from where(report)
    yield f"{report['pixels']} pixels, float32 in torch, one image at a time, one thread, CPU time."
    yield ""
    yield "| network cut for | torch ms | runtime | ms | times faster |"
    yield "|---|---:|---|---:|---:|"
    for cut, found in report["cuts"].items():
        torch = min(ms for name, ms in found["median_ms"].items() if name.startswith("torch"))
        for name, times in found["times_faster"].items():
            ms = found["median_ms"][name]
            yield f"| {cut} | {torch:.1f} | {name} | {ms:.1f} | {times:.1f} |"


def inspection(report: Report) -> Iterator[str]:
    """Yield how well drawn defects are found, beside pyod on the same split."""
    yield "## Defects found (drawn by a program), against pyod on the same split"
    yield ""
    yield from where(report)
    yield "`overkill` is the share of good parts rejected, where 0.02 was asked for."
    yield ""
    yield "| set | AUROC | best of pyod | overkill | recall | AUPRO |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, methods in report["sets"].items():
        ours = methods["genba"]
        best = max(found["auroc"] for peer, found in methods.items() if peer != "genba")
        yield (
            f"| {name} | {ours['auroc']:.3f} | {best:.3f} | {ours['overkill']:.3f} "
            f"| {ours['recall']:.3f} | {ours['aupro']:.3f} |"
        )


def forecast(report: Report) -> Iterator[str]:
    """Yield how far a day-ahead forecast of load is off, and what a long one costs."""
    quality, spent = report["quality"], report["speed"]
    seconds = spent["cpu_seconds_fit"] + spent["cpu_seconds_score"]
    yield "## Electricity load a day ahead (package:elecdemand)"
    yield ""
    yield from where(report)
    yield f"The same {quality['origins']} rolling origins for all. Ridge over 17,420 x 7 generated"
    yield f"values, four horizons, search through scoring: {seconds:.0f} CPU-seconds."
    yield ""
    yield "| method | MAE, GW | RMSE, GW |"
    yield "|---|---:|---:|"
    for name, found in sorted(quality["methods"].items(), key=lambda pair: pair[1]["mae_gw"]):
        yield f"| {name} | {found['mae_gw']:.3f} | {found['rmse_gw']:.3f} |"


def remaining_life(report: Report) -> Iterator[str]:
    """Yield how well the end of generated bearings is foreseen, beside plain models."""
    yield "## Cycles left (generated bearings)"
    yield ""
    yield from where(report)
    yield f"Means over {len(report['fleets'])} generated fleets; costs in needless stops."
    yield ""
    yield "| method | RMSE, capped | cost per unit | failures missed |"
    yield "|---|---:|---:|---:|"
    fleets = [fleet["methods"] for fleet in report["fleets"].values()]
    for name in fleets[0]:
        if any(name not in fleet for fleet in fleets):  # an age that was fitted to one fleet
            continue
        cells = (_mean([fleet[name] for fleet in fleets], measure) for measure in _SHOWN)
        yield f"| {name} | {' | '.join(cells)} |"


def where(report: Report) -> Iterator[str]:
    """Yield when and on which machine."""
    machine, day = report["machine"], report["measured"][:10]
    yield f"Measured {day} on {machine['processor']}, {machine['cores']:g} cores,"
    yield f"load {report['load_1m']:.1f} when it ended."


def _mean(found: list[Report], measure: str) -> str:
    values = [one[measure]["value"] for one in found if measure in one]
    return f"{sum(values) / len(values):.2f}" if values else ""
