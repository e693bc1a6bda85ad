"""`genba status`: every line, what is in production, what waits, and what happens next."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from genba.core import tuning
from genba.core.codec import encode
from genba.core.line import Line
from genba.core.rollout import Placed
from genba.core.values import Bill, Event
from genba.loop.decide import Action, decide
from genba.loop.state import LineState, advance, initial
from genba.store.home import Store
from genba.targets.cost import bill
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.figures import ago, bill_facts, measure, number, seconds, short
from genba.ui.cli.lookup import known_line, line_names, open_home
from genba.ui.cli.options import DEFAULT, Options

_ROLES: Final = ("stable", "canary", "shadow")
_KEPT: Final = {"digest": "a digest of the inputs", "none": "no inputs"}
_PERSON: Final = ("ask", "alert")


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where one line stands, folded from the ledger."""

    line: Line
    state: LineState
    actions: tuple[Action, ...]  # what the controller would do now
    waits: tuple[str, ...]  # what a person is asked, as sentences
    newest_run: Mapping[str, Any]
    feedback: Mapping[str, int]
    hindsight: tuple[Mapping[str, Any], ...]  # findings of the newest window of the stable package
    tuned: Mapping[str, Event]  # its parameters that were set in service, newest event each
    today: Bill
    dropped: int  # predictions of today that were answered but not captured


def status(name: str = "", /, *, options: Options = DEFAULT) -> Answer:
    """Show what every line is doing and what happens next.

    Args:
        name: One line only.
        options: Common options.
    """
    now_ms = time.time_ns() // 1_000_000
    with open_home(options) as store:
        names = [known_line(store, name).name] if name else line_names(store)
        standings = [standing(store, known_line(store, one), now_ms) for one in names]
        home = str(store.path)
    blocks: list[RenderableType] = []
    for one in standings:
        blocks += [_headline(one), facts(_facts(one, now_ms))]
    if not standings:
        blocks = [heading(f"No line was run in {home} yet")]
    steps = tuple(dict.fromkeys(step for one in standings for step in _next(one)))
    return Answer(
        data={"home": home, "lines": [_plain(one) for one in standings]},
        blocks=blocks,
        next=steps or ("genba init",),
    )


def standing(store: Store, line: Line, now_ms: int) -> Standing:
    """Fold the ledger into where a line stands.

    Args:
        store: The home.
        line: The line as it was recorded last.
        now_ms: The time, ms since 1970 UTC.
    """
    events = store.ledger.events(line=line.name)
    state = advance(initial(line), events)
    due = decide(line, state, now_ms)
    return Standing(
        line=line,
        state=state,
        actions=tuple(a for a in due if a.kind not in _PERSON),
        waits=_waits(state, events, due),
        newest_run=_newest_run(events),
        feedback=store.feedback.counts(line.name),
        hindsight=_hindsight(state, events),
        tuned=_tuned(state, events),
        today=_spent_since(events, _midnight_ms(now_ms)),
        dropped=_dropped_since(events, _midnight_ms(now_ms)),
    )


def _hindsight(state: LineState, events: Iterable[Event]) -> tuple[Mapping[str, Any], ...]:
    """Return what the newest window of the stable package showed of earlier predictions."""
    stable = state.rollout.stable
    newest: Event | None = None
    for event in events:
        if event.kind == "watch" and stable and event.subject == stable.package:
            newest = event
    found = newest.body.get("findings") or () if newest else ()
    return tuple(f for f in found if f.get("kind") == "hindsight")


def _tuned(state: LineState, events: Iterable[Event]) -> dict[str, Event]:
    stable = state.rollout.stable
    return {
        str(event.body["parameter"]): event
        for event in events
        if event.kind == tuning.KIND and stable and event.subject == stable.package
    }


def _waits(state: LineState, events: Iterable[Event], due: Iterable[Action]) -> tuple[str, ...]:
    """Return what a person is asked: now, or earlier about a package that is still in its place."""
    asked = {a.key: a.reason for a in due if a.kind in _PERSON}
    placed = (state.rollout.stable, state.rollout.canary, state.rollout.shadow)
    since = {p.package: p.since_seq for p in placed if p}
    for event in events:
        package = str(event.body.get("package", ""))
        if (
            event.kind == "action"
            and event.body.get("action") in _PERSON
            and event.seq > since.get(package, event.seq)
            and package not in state.approvals
        ):
            asked[str(event.body.get("key"))] = str(event.body.get("reason"))
    return tuple(asked.values())


def _newest_run(events: Iterable[Event]) -> dict[str, Any]:
    newest: dict[str, Any] = {}
    for event in events:
        if event.kind == "run.started":
            newest = {**event.body, "outcome": "running", "started_ms": event.time_ms}
        elif event.kind == "run.finished" and event.body.get("run") == newest.get("run"):
            newest |= {**event.body, "finished_ms": event.time_ms}
    return newest


def _midnight_ms(now_ms: int) -> int:
    day = datetime.fromtimestamp(now_ms / 1_000, UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    return int(day.timestamp() * 1_000)


def _spent_since(events: Iterable[Event], since_ms: int) -> Bill:
    """Add up what stages and predictions took; the machine was held only for the stages."""
    seconds_, cpu_seconds = 0.0, 0.0
    for event in events:
        if event.time_ms < since_ms:
            continue
        if event.kind == "stage.finished":
            seconds_ += float(event.body.get("seconds") or 0.0)
            cpu_seconds += float(event.body.get("cpu_seconds") or 0.0)
        elif event.kind == "capture.created":
            packages = (event.body.get("packages") or {}).values()
            cpu_seconds += sum(float(p.get("cpu_seconds") or 0.0) for p in packages)
    return bill(seconds_, cpu_seconds)


def _dropped_since(events: Iterable[Event], since_ms: int) -> int:
    captures = (e for e in events if e.kind == "capture.created" and e.time_ms >= since_ms)
    return sum(int(event.body.get("dropped") or 0) for event in captures)


def _captured(one: Standing) -> Iterator[tuple[str, RenderableType]]:
    """Say what is kept of predictions, where that is not everything."""
    capture = one.line.capture
    kept = [] if capture.inputs == "all" else [_KEPT[capture.inputs]]
    if capture.sample < 1:
        kept.append(f"{100 * capture.sample:g} % of the predictions, and all alarms and errors")
    if kept:
        yield "captured", ", ".join(kept)
    if one.dropped:
        yield "not captured", f"{number(one.dropped)} predictions today: the disk was too slow"


def _headline(one: Standing) -> Text:
    name, rollout = one.line.name, one.state.rollout
    if one.waits:
        return heading(f"{name}  waits for a person", mark="wait")
    if rollout.stable:
        return heading(f"{name}  in production", mark="yes")
    if one.newest_run.get("outcome") == "running":
        return heading(f"{name}  nothing in production yet; its run goes on", mark="wait")
    return heading(f"{name}  nothing in production", mark="no")


def _facts(one: Standing, now_ms: int) -> list[tuple[str, RenderableType]]:
    state = one.state
    pairs: list[tuple[str, RenderableType]] = [("task", one.line.task)]
    for role in _ROLES:
        placed: Placed | None = getattr(state.rollout, role)
        if placed:
            pairs.append((role, _placed(role, placed, one, now_ms)))
    if state.candidate:
        pairs.append(("candidate", f"{short(state.candidate.package)}, not in service yet"))
    if one.newest_run:
        pairs.append(("newest run", _run(one.newest_run, now_ms)))
    drift = [
        f"{name} in {streak.windows} windows in a row, {number(streak.statistic)}"
        for name, streak in state.evidence.drift.items()
    ]
    pairs.append(("drift", "; ".join(drift) or "none found"))
    pairs += [("in hindsight", _known(finding)) for finding in one.hindsight]
    pairs += [("set in service", _set(name, event)) for name, event in one.tuned.items()]
    said = ", ".join(f"{number(n)} {status}" for status, n in one.feedback.items())
    pairs.append(("feedback", said or "none"))
    pairs += [("waits for you", sentence) for sentence in one.waits]
    for action in one.actions:
        pairs.append((f"next: {action.kind.replace('_', ' ')}", action.reason))
    if not one.actions:
        pairs.append(("next", "nothing to do; watching"))
    pairs += _captured(one)
    pairs.append(("decides", one.line.rollout.decide))
    pairs += [(f"{name} today", text) for name, text in bill_facts(one.today)[:3]]
    return pairs


def _known(finding: Mapping[str, Any]) -> str:
    """Say what a measure was, and which gate it misses, if any."""
    names = {"value": finding["statistic"], "low": finding.get("low"), "high": finding.get("high")}
    text = f"{finding['name']} {measure({**names, 'unit': ''})}, of {number(finding['n'])}"
    if finding.get("drifted"):
        text += f"; beyond its gate, {number(finding['limit'])}"
    return text


def _set(name: str, event: Event) -> str:
    body = event.body
    return f"{name} = {number(float(body['value']))} by {body.get('by')}: {body.get('reason')}"


def _placed(role: str, placed: Placed, one: Standing, now_ms: int) -> str:
    traffic = one.state.stable if role == "stable" else one.state.challenger
    text = f"{short(placed.package)}, {ago(placed.since_ms, now_ms)}"
    if role == "canary":
        text += f", {100 * placed.share:g} % of the traffic"
    return f"{text}, {number(traffic.n)} prediction{'' if traffic.n == 1 else 's'}"


def _run(run: Mapping[str, Any], now_ms: int) -> str:
    text = f"{run.get('run')}  {run.get('outcome')}  (why: {run.get('reason')})"
    if "finished_ms" in run:
        took = float(run.get("seconds") or 0.0)
        text += f", {ago(run['finished_ms'], now_ms)}, took {seconds(took)}"
    problem = run.get("problem") or {}
    why = [f"{problem['code']} {problem['what']}"] if problem else run.get("stop") or ()
    return "\n".join([text, *(str(reason) for reason in why)])


def _next(one: Standing) -> tuple[str, ...]:
    name = one.line.name
    if one.waits and one.state.placed:
        return (f"genba approve {name}", f"genba approve {name} --no")
    if one.newest_run.get("outcome") in ("failed", "cancelled") or not one.state.rollout.stable:
        return (f"genba run {name}",)
    return ("genba up", f"genba label {name}")


def _plain(one: Standing) -> dict[str, Any]:
    state = one.state
    return {
        "line": one.line.name,
        "task": one.line.task,
        "decides": one.line.rollout.decide,
        "rollout": {role: _plain_placed(getattr(state.rollout, role)) for role in _ROLES},
        "previous": state.rollout.previous,
        "condemned": sorted(state.rollout.condemned),
        "candidate": encode(state.candidate),
        "newest_run": dict(one.newest_run) or None,
        "drift": encode(state.evidence.drift),
        "labels_since_training": state.evidence.labels,
        "feedback": dict(one.feedback),
        "hindsight": [dict(finding) for finding in one.hindsight],
        "parameters": {name: event.body["value"] for name, event in one.tuned.items()},
        "waits_for_a_person": list(one.waits),
        "next_actions": [encode(a) for a in one.actions],
        "capture": encode(one.line.capture),
        "dropped_today": one.dropped,
        "bill_today": encode(one.today),
    }


def _plain_placed(placed: Placed | None) -> dict[str, Any] | None:
    return encode(placed) if placed else None
