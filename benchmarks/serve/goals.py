"""The goals of serving, held against what was measured; nothing here is written by hand."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.serve.servers import PEER_SERVERS

_BUSY: Final = 0.3  # cores used by others; from here on it is named as a reason
_PEERS: Final = tuple(server.name for server in PEER_SERVERS)
_NOT_MEASURED: Final = "not measured"
_OVERLOAD: Final = 9.0  # times the capacity; less is no test of ten times


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """One goal, what was measured, and whether it holds."""

    name: str
    asked: str
    measured: str
    holds: bool | None  # None where a number is missing
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The best of a server's configurations and forms under a load."""

    server: str
    title: str
    configuration: str
    form: str
    cell: dict[str, Any]


def ours(report: dict[str, Any], model: str, form: str, clients: int) -> dict[str, Any] | None:
    """Return our own cell for a load, None when it was not measured."""
    return cell_of(report, "ours", (model, form, clients))


def cell_of(
    report: dict[str, Any], server: str, load: tuple[str, str, int]
) -> dict[str, Any] | None:
    """Return the cell of a server with the most requests per second under a load."""
    model, form, clients = load
    cells = [
        cell
        for cell in report["servers"][server]["loads"]
        if (cell["model"], cell["form"], cell["clients"]) == (model, form, clients)
    ]
    return max(cells, key=lambda cell: cell["requests_per_s"], default=None)


def peers(report: dict[str, Any], model: str, clients: int, form: str = "") -> list[Best]:
    """Return every peer at its best, the fastest first.

    Args:
        report: The report.
        model: Which.
        clients: How many.
        form: json or binary; the better of both if not given.
    """
    found = []
    for name in _PEERS:
        one = report["servers"][name]
        cells = [
            cell
            for cell in one["loads"]
            if (cell["model"], cell["clients"]) == (model, clients) and form in ("", cell["form"])
        ]
        if cells:
            cell = max(cells, key=lambda c: c["requests_per_s"])
            found.append(
                Best(
                    server=name,
                    title=one["title"],
                    configuration=cell["configuration"],
                    form=cell["form"],
                    cell=cell,
                )
            )
    return sorted(found, key=lambda best: -best.cell["requests_per_s"])


def raw_best(report: dict[str, Any], model: str, batch: int = 0) -> dict[str, Any] | None:
    """Return the raw engine's best rows per second, of one size of batch or of any."""
    ways = report["raw"].get(model, [])
    fitting = [way for way in ways if batch in (0, way["batch"])]
    return max(fitting, key=lambda way: way["rows_per_s"], default=None)


def goals(report: dict[str, Any]) -> list[Goal]:
    """Return every goal of the issue with what was measured."""
    return [*_speed(report), *_limits(report), *_overload(report), *_swap(report), *_store(report)]


def _speed(report: dict[str, Any]) -> Iterator[Goal]:
    mine, others = ours(report, "tab", "binary", 64), peers(report, "tab", 64)
    name = "small model, 64 clients, binary: requests/s"
    yield _ratio(report, name, (mine, others[0] if others else None), 8)
    mlserver = [best for best in others if best.server == "mlserver"]
    yield _ratio(report, name, (mine, mlserver[0] if mlserver else None), 40)
    mine = ours(report, "tab", "binary", 1)
    quick = sorted(peers(report, "tab", 1), key=lambda best: float(best.cell["p50_ms"]))
    asked = "p50 at most 1/3 of the best peer's"
    name = "small model, 1 client, binary: p50"
    if mine is None or not quick:
        yield _missing(name, asked)
        return
    best = quick[0]
    share = mine["p50_ms"] / best.cell["p50_ms"]
    measured = (
        f"{mine['p50_ms']:.3f} ms against {best.cell['p50_ms']:.3f} ms of {best.title}: {share:.2f}"
    )
    holds = share <= 1 / 3
    yield Goal(name=name, asked=asked, measured=measured, holds=holds, why=_why(holds, mine))


def _ratio(
    report: dict[str, Any],
    name: str,
    pair: tuple[dict[str, Any] | None, Best | None],
    least: int,
) -> Goal:
    mine, best = pair
    of = "MLServer" if least == 40 else "the best peer"
    asked = f"at least {least} times {of}"
    if mine is None or best is None:
        return _missing(name, asked)
    times = mine["requests_per_s"] / best.cell["requests_per_s"]
    cpu = best.cell["cpu_us"] / mine["cpu_us"] if mine["cpu_us"] else 0.0
    measured = (
        f"{mine['requests_per_s']:,.0f}{_as(mine)} against"
        f" {best.cell['requests_per_s']:,.0f} of {best.title}"
        f" ({best.form}): {times:.1f} times; {cpu:.0f} times less CPU per request"
    )
    holds = times >= least
    echo = cell_of(report, "echo", ("tab", "binary", 64))
    more = ""
    if echo:
        more = (
            f"we take {mine['cpu_us'] / echo['cpu_us']:.1f} times the CPU of the bare echo, which"
            f" itself gets {echo['requests_per_s'] / best.cell['requests_per_s']:.1f} times as many"
        )
    return Goal(name=name, asked=asked, measured=measured, holds=holds, why=_why(holds, mine, more))


def _limits(report: dict[str, Any]) -> Iterator[Goal]:
    mine, raw = ours(report, "cnn", "binary", 8), raw_best(report, "cnn")
    name, asked = "images, 8 clients, binary: images/s", "at least 90 % of the raw engine"
    if mine is None or raw is None:
        yield _missing(name, asked)
    else:
        share = mine["requests_per_s"] / raw["rows_per_s"]
        way = f"batches of {raw['batch']}, {raw['callers']} x {raw['threads']} threads"
        measured = f"{mine['requests_per_s']:.1f} of {raw['rows_per_s']:.1f} ({way}): {share:.0%}"
        more = (
            f"{mine['cpu_us'] / 1e3:.1f} ms CPU per image against {raw['cpu_us'] / 1e3:.1f} ms raw;"
            f" the load generator takes its share of the same {report['cores']} cores"
        )
        holds = share >= 0.9
        yield Goal(
            name=name, asked=asked, measured=measured, holds=holds, why=_why(holds, mine, more)
        )
    for model, clients in (("tab", 64), ("cnn", 8)):
        yield _json_share(report, model, clients)
    name, asked = "memory of a process with one small model", "under 120 MB"
    held = report["growth"].get("memory", {})
    if "busy_mib" not in held:
        yield _missing(name, asked)
        return
    megabytes = held["busy_mib"] * 2**20 / 1e6
    rest = held["rest_mib"] * 2**20 / 1e6
    yield Goal(
        name=name,
        asked=asked,
        measured=f"{megabytes:.0f} MB after work, {rest:.0f} MB at rest",
        holds=megabytes < 120,
    )


def _json_share(report: dict[str, Any], model: str, clients: int) -> Goal:
    name = (
        f"{'small model' if model == 'tab' else 'images'}, {clients} clients: JSON against binary"
    )
    asked = "at least half"
    text, binary = (ours(report, model, form, clients) for form in ("json", "binary"))
    if text is None or binary is None or not binary["requests_per_s"]:
        return _missing(name, asked)
    share = text["requests_per_s"] / binary["requests_per_s"]
    measured = f"{text['requests_per_s']:,.0f}/s of {binary['requests_per_s']:,.0f}/s: {share:.2f}"
    holds = share >= 0.5
    more = f"{text['cpu_us']:,.0f} us CPU per request against {binary['cpu_us']:,.0f}"
    return Goal(name=name, asked=asked, measured=measured, holds=holds, why=_why(holds, text, more))


def _overload(report: dict[str, Any]) -> Iterator[Goal]:
    for model in ("cnn", "tab"):
        found = report["overload"].get(model, {})
        title = "images" if model == "cnn" else "small model"
        if "times" not in found:
            yield _missing(f"{title}, overload", "see the goals", found.get("problem", ""))
            continue
        name = f"{title}, {found['times']:.1f} times its capacity"
        more = f"the generator used {found['generator']['cores']:.1f} of the same cores"
        if found["times"] < _OVERLOAD:
            sent = f"it could only be sent {found['times']:.1f} times its capacity"
            measured = f"goodput {_percent(found['goodput'])} of that at 1x, accepted p99 "
            measured += _ms(found["accepted_p99_ms"])
            yield Goal(
                name=f"{title}, 10 times its capacity",
                asked="as above",
                measured=measured,
                holds=False,
                why=f"not shown: {sent}, {more}",
            )
            continue
        deadline = found["deadline_ms"]
        for part, asked, measured, holds in (
            ("goodput", "at least 90 % of that at 1x", _percent(found["goodput"]),
             found["goodput"] >= 0.9),
            ("accepted p99", f"at most {2 * deadline} ms, twice the deadline",
             _ms(found["accepted_p99_ms"]), _below(found["accepted_p99_ms"], 2 * deadline)),
            ("refusals p99", "under 100 ms", _ms(found["refused_p99_ms"]),
             _below(found["refused_p99_ms"], 100)),
            ("back to normal", "in 2 s", _s(found["recovery_s"]),
             found["recovery_s"] is not None and found["recovery_s"] <= 2),
        ):  # fmt: skip
            why = "" if holds else more
            yield Goal(name=f"{name}: {part}", asked=asked, measured=measured, holds=holds, why=why)


def _swap(report: dict[str, Any]) -> Iterator[Goal]:
    found = report["swap"].get("tab", {})
    if "failed" not in found:
        yield _missing("swap and rollback under load", "0 failed", found.get("problem", ""))
        return
    name = "swap, canary, promotion, rollback under load"
    yield Goal(
        name=f"{name}: failed requests",
        asked="0",
        measured=f"{found['failed']} of {found['requests']:,} in {found['events']} events",
        holds=found["failed"] == 0,
    )
    worst = max(found["after"].values(), key=lambda after: float(after["worst_p99_ms"]))
    measured = (
        f"more than twice the normal {found['normal_p99_ms']:.1f} ms for"
        f" {found['disturbed_s']:.1f} s at most (without any event for"
        f" {found['quiet_disturbed_s']:.1f} s);"
        f" the worst 100 ms had {worst['worst_p99_ms']:.0f} ms"
    )
    holds = found["disturbed_s"] <= 1.0
    yield Goal(
        name=f"{name}: p99",
        asked="not more than doubled for at most 1 s",
        measured=measured,
        holds=holds,
        why="" if holds else "a package is loaded, tried and timed beside the requests",
    )


def _store(report: dict[str, Any]) -> Iterator[Goal]:
    name, asked = "lookup of a prediction by id", "under 50 ms at 10 million"
    stores = report["store"].get("stores", [])
    if not stores:
        yield _missing(name, asked, report["store"].get("problem", ""))
        return
    largest = max(stores, key=lambda store: int(store["predictions"]))
    kinds = [kind for kind in largest if kind.startswith("find")]
    worst = max(float(largest[kind]["p99"]) for kind in kinds)
    yield Goal(
        name=name,
        asked=asked,
        measured=f"p99 {worst:.1f} ms at {largest['predictions']:,}",
        holds=worst < 50 and largest["predictions"] >= 10_000_000,
    )


def _as(cell: dict[str, Any]) -> str:
    return f" ({cell['configuration']})" if cell["configuration"] else ""


def _why(holds: bool, cell: dict[str, Any], more: str = "") -> str:
    if holds:
        return ""
    reasons = [more] if more else []
    if cell["foreign_cores"] > _BUSY:
        reasons.append(f"others used {cell['foreign_cores']:.1f} cores meanwhile")
    if cell["refused"]:
        reasons.append(f"{cell['refused']:,} of {cell['requests']:,} requests were refused")
    return "; ".join(reasons)


def _missing(name: str, asked: str, why: str = "") -> Goal:
    return Goal(name=name, asked=asked, measured=_NOT_MEASURED, holds=None, why=why)


def _below(value: float | None, bound: float) -> bool:
    return value is not None and value <= bound


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _ms(value: float | None) -> str:
    return "none" if value is None else f"{value:,.1f} ms"


def _s(value: float | None) -> str:
    return "not within the time measured" if value is None else f"{value:.1f} s"
