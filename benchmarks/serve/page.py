"""The tables, written from the report: this folder's README, the top README, the leaderboard."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.serve.goals import Best, cell_of, ours, peers, raw_best
from benchmarks.serve.models import NAMES, TITLES
from benchmarks.serve.rounds import CLIENTS

HERE: Final = Path(__file__).parent
_README: Final = HERE.parents[1] / "README.md"
_MARKS: Final = ("<!-- bench-serve: written by `make bench-serve` -->", "<!-- /bench-serve -->")
_FORMS: Final = ("binary", "json")
_BUSY: Final = 0.3


def write(report: dict[str, Any]) -> None:
    """Write the tables into the READMEs, between their marks; a file without marks is left."""
    _between(HERE / "README.md", "\n".join(whole(report)))
    _between(_README, "\n".join(short(report)))


def _between(path: Path, text: str) -> None:
    if not path.exists():
        return
    start, end = _MARKS
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    new = pattern.sub(lambda _: f"{start}\n{text}\n{end}", old)
    path.write_text(new, encoding="utf-8")


def whole(report: dict[str, Any]) -> Iterator[str]:
    """Yield everything."""
    yield from when(report)
    yield ""
    yield "## Goals"
    yield ""
    yield from goals_table(report)
    for model in NAMES:
        yield ""
        yield f"## {TITLES[model]}"
        yield ""
        yield from servers_table(report, model)
    yield ""
    yield from _peers_that_did_not(report)
    for title, part in (
        ("The raw engine", raw_table),
        ("Ten times too much", overload_table),
        ("Swap and rollback under load", swap_table),
        ("How cost grows", growth_tables),
    ):
        yield ""
        yield f"## {title}"
        yield ""
        yield from part(report)


def short(report: dict[str, Any]) -> Iterator[str]:
    """Yield what the top README shows: the best of each server, and the goals."""
    yield from when(report)
    yield ""
    yield "| small model, 64 clients | requests/s | Genba is | p99, ms | CPU us/request |"
    yield "|---|---:|---:|---:|---:|"
    mine = ours(report, "tab", "binary", 64)
    rows = [("**Genba**, binary", mine), ("Genba, JSON", ours(report, "tab", "json", 64))]
    rows += [(f"{best.title}, {best.form}", best.cell) for best in peers(report, "tab", 64)]
    for name, cell in rows:
        if cell is not None:
            yield _short_row(name, cell, mine)
    yield ""
    yield from goals_table(report)


def _short_row(name: str, cell: dict[str, Any], mine: dict[str, Any] | None) -> str:
    times = "" if mine is None or cell is mine else _times(mine, cell)
    return (
        f"| {name} | {cell['requests_per_s']:,.0f} | {times} | {cell['p99_ms']:,.1f} "
        f"| {cell['cpu_us']:,.0f} |"
    )


def leaderboard(report: dict[str, Any]) -> Iterator[str]:
    """Yield the section of docs/LEADERBOARD.md."""
    yield "## Serving"
    yield ""
    yield from short(report)


def when(report: dict[str, Any]) -> Iterator[str]:
    """Yield when, where and under which load."""
    machine = report["machine"]
    kind = "A quick pass, one second per load" if report["quick"] else "Medians of repeats in turn"
    yield f"Measured {report['measured']} on {machine['processor']}, {report['cores']} cores,"
    yield f"{machine['memory_mib'] / 1024:.1f} GiB, {machine['system']},"
    yield f"Python {machine['python']}, {report['runtime'].replace('==', ' ')}; others used"
    yield f"{report['foreign_cores_before']:.1f} cores before it. {kind}; load generator and"
    yield "server share the cores."


def goals_table(report: dict[str, Any]) -> Iterator[str]:
    """Yield every goal with what was measured."""
    yield "| goal | asked for | measured | |"
    yield "|---|---|---|---|"
    for goal in report["goals"]:
        verdict = {True: "holds", False: "**does not hold**", None: "-"}[goal["holds"]]
        why = f": {goal['why']}" if goal["why"] else ""
        yield f"| {goal['name']} | {goal['asked']} | {goal['measured']} | {verdict}{why} |"


def servers_table(report: dict[str, Any], model: str) -> Iterator[str]:
    """Yield every server's best under each number of clients, in both forms."""
    yield "Requests/s (p50 / p99 ms) by clients; CPU and ratio at the largest number of clients"
    yield "that was measured. `x raw` is CPU per request by that of the raw engine, one row at a"
    yield "time; `Genba is` compares requests/s with Genba's"
    yield "in the same form."
    yield ""
    numbers = " | ".join(f"{clients} clients" for clients in CLIENTS)
    yield f"| server | form | {numbers} | CPU us | x raw | Genba is |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for form in _FORMS:
        rows = {f"**{report['servers'][n]['title']}**": n for n in ("ours", "echo")}
        for title, name in rows.items():
            cells = {c: cell_of(report, name, (model, form, c)) for c in CLIENTS}
            words = {cell["configuration"] for cell in cells.values() if cell}
            yield from _server_row(report, _titled(title, words), (model, form), cells)
        order = [best.server for best in peers(report, model, CLIENTS[1], form)]
        for name in order:
            bests = {c: _one(peers(report, model, c, form), name) for c in CLIENTS}
            cells = {c: best.cell if best else None for c, best in bests.items()}
            words = {best.configuration for best in bests.values() if best}
            title = _titled(report["servers"][name]["title"], words)
            yield from _server_row(report, title, (model, form), cells)


def _titled(title: str, configurations: set[str]) -> str:
    """Return a name with what was the best of it, where there was a choice."""
    words = ", ".join(sorted(configurations - {""}))
    return f"{title} ({words})" if words else title


def _one(found: list[Best], server: str) -> Best | None:
    return next((best for best in found if best.server == server), None)


def _server_row(
    report: dict[str, Any],
    title: str,
    what: tuple[str, str],
    cells: dict[int, dict[str, Any] | None],
) -> Iterator[str]:
    last = max((clients for clients, cell in cells.items() if cell), default=0)
    cell = cells.get(last)
    if cell is None:
        return
    model, form = what
    raw, mine = raw_best(report, model, 1), ours(report, model, form, last)
    times = f"{cell['cpu_us'] / raw['cpu_us']:.1f}" if raw else ""
    ratio = _times(mine, cell) if mine else ""
    texts = " | ".join(_cell(cells[clients]) for clients in CLIENTS)
    yield f"| {title} | {form} | {texts} | {cell['cpu_us']:,.0f} | {times} | {ratio} |"


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    rate = cell["requests_per_s"]
    text = f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
    text += f" ({cell['p50_ms']:,.2f} / {cell['p99_ms']:,.1f})"
    if cell["refused"] or cell["broken"] or cell["late"]:
        text += f", {cell['refused'] + cell['broken'] + cell['late']:,} failed"
    if cell["foreign_cores"] > _BUSY:
        text += f", others {cell['foreign_cores']:.1f} cores"
    return text


def _times(mine: dict[str, Any], cell: dict[str, Any]) -> str:
    if not cell["requests_per_s"]:
        return ""
    return f"{mine['requests_per_s'] / cell['requests_per_s']:.1f}x"


def _peers_that_did_not(report: dict[str, Any]) -> Iterator[str]:
    yield "| server | configuration | start, s | processes | memory, MiB | |"
    yield "|---|---|---:|---:|---:|---|"
    for server in report["servers"].values():
        for configuration, state in server["states"].items():
            held = server["processes"].get(configuration)
            numbers = " | | "
            if held:
                numbers = f"{held['start_s']:.1f} | {held['processes']} | {held['pss_mib']:.0f}"
            said = state.replace("|", "/").replace("\n", " ")
            yield f"| {server['title']} | {configuration} | {numbers} | {said} |"
    yield ""
    yield "Memory is the proportional set size of all processes, with both models, after the load."


def raw_table(report: dict[str, Any]) -> Iterator[str]:
    """Yield what the engine gives without a server."""
    yield "| model | batch | callers x threads | rows/s | p50, ms | CPU us/row |"
    yield "|---|---:|---:|---:|---:|---:|"
    for model in NAMES:
        for way in report["raw"].get(model, []):
            yield (
                f"| {model} | {way['batch']} | {way['callers']} x {way['threads']} "
                f"| {way['rows_per_s']:,.0f} | {way['p50_ms']:.3f} | {way['cpu_us']:,.1f} |"
            )


def overload_table(report: dict[str, Any]) -> Iterator[str]:
    """Yield what is answered under each rate; latency counts from when a request was due."""
    yield "| model | part | asked/s | in time/s | accepted p99, ms | refused p99, ms | statuses |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for model, found in report["overload"].items():
        names = ("half", "capacity", "overload", "half again")
        for name, one in zip(names, found.get("phases", []), strict=False):
            statuses = ", ".join(f"{code}: {n:,}" for code, n in one["statuses"].items())
            yield (
                f"| {model} | {name}, {one['seconds']:g} s | {one['asked_per_s']:,.0f} "
                f"| {one['good_per_s']:,.0f} | {_number(one['accepted_p99_ms'])} "
                f"| {_number(one['refused_p99_ms'])} | {statuses} |"
            )
    yield ""
    yield "Status 0: the connection ended without an answer; 1: never sent, because every"
    yield "connection had as many requests under way as it may (512 connections; 4 on each for the"
    yield "small model)."


def swap_table(report: dict[str, Any]) -> Iterator[str]:
    """Yield what each kind of event does to p99."""
    found = report["swap"].get("tab", {})
    yield "| event | worst p99 of 100 ms, ms | longest stretch above twice the normal p99, s |"
    yield "|---|---:|---:|"
    for action, after in found.get("after", {}).items():
        yield f"| {action} | {after['worst_p99_ms']:.1f} | {after['disturbed_s']:.1f} |"


def growth_tables(report: dict[str, Any]) -> Iterator[str]:
    """Yield cost by models loaded, by clients, and of the store."""
    found = report["growth"]
    yield "| models loaded | start, s | MiB | 1 client: p50, ms | 64 clients: requests/s | CPU us |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for count, one in found.get("models", {}).items():
        if isinstance(one, dict):
            yield (
                f"| {count} | {one['start_s']:.1f} | {one['pss_busy_mib']:.0f} "
                f"| {one['one']['p50_ms']:.3f} | {one['many']['requests_per_s']:,.0f} "
                f"| {one['many']['cpu_us']:.0f} |"
            )
    yield ""
    yield "| clients | requests/s | p50, ms | p99, ms | CPU us |"
    yield "|---:|---:|---:|---:|---:|"
    for count, one in found.get("clients", {}).items():
        if isinstance(one, dict):
            yield (
                f"| {count} | {one['requests_per_s']:,.0f} | {one['p50_ms']:.2f} "
                f"| {one['p99_ms']:.1f} | {one['cpu_us']:.0f} |"
            )
    stores = report["store"].get("stores", [])
    if stores:
        yield ""
        yield "| predictions kept | bytes each | written in, ms (p99) | found by id in, ms (p99) |"
        yield "|---:|---:|---:|---:|"
    for one in stores:
        yield (
            f"| {one['predictions']:,} | {one['bytes_per_prediction']} "
            f"| {one['write_ms']['p99']} | {one['find_ms']['p99']} |"
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
