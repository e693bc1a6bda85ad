"""The acts of the demonstration, in order. No act forces an outcome; each says what it saw."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from genba.core.codec import decode
from genba.core.line import Line
from genba.core.values import Event, Manifest
from genba.data.ingest import ingest
from genba.data.sources import source_of
from genba.runs.progress import Progress
from genba.serve.client import Client
from genba.stages.pipeline import RunOutcome, run_line
from genba.store.home import Store
from genba.ui.demo.drills import Drill, drill
from genba.ui.demo.factory import Factory, ask
from genba.ui.demo.operators import Operator
from genba.ui.demo.plan import Plan
from genba.ui.demo.replay import DAY_MS, Player
from genba.ui.demo.story import Happening, Story
from genba.ui.demo.traffic import load_traffic

_LONGEST_RUN_S: Final = 300.0


@dataclass(kw_only=True)
class Scene:
    """Everything the acts share, and what they found."""

    plan: Plan
    line: Line  # as it was trained at first
    store: Store
    story: Story
    first: RunOutcome
    survey: dict[str, Any]
    url: str = ""
    pid: int = 0
    promoted: str | None = None
    canary: Event | None = None
    poisoned: Event | None = None
    operators: list[Operator] = field(default_factory=list)
    drills: list[Drill] = field(default_factory=list)
    trace: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    predictions: int = 0
    failed: int = 0
    alarms: int = 0


def check_all(line: Line, store: Store, progress: Progress) -> dict[str, Any]:
    """Check every row there is, under a name of its own, and return what was found.

    The line itself reads the early months only: nothing it trains on may come from the future.
    """
    everything = replace(line.data, until=None, entities=())
    records = replace(line, name=f"{line.name}-records", data=everything)
    version = ingest(source_of(records, progress), records, store, progress)
    sheet = json.loads(store.blobs.read(version.sheet))
    entities = sheet["entities"]["by_name"]
    return {
        "rows_in": sheet["rows"]["read"],
        "rows_kept": sheet["rows"]["kept"],
        "rejected": sheet["rows"]["rejected"],
        "gaps": {name: facts["gaps"] for name, facts in entities.items()},
        "missing_steps": {name: facts["missing_steps"] for name, facts in entities.items()},
        "stuck_rows": {name: facts["rows"] for name, facts in sheet["stuck"].items()},
        "missing_values": {name: facts["missing"] for name, facts in sheet["columns"].items()},
        "dataset": version.id,
    }


def in_words(survey: dict[str, Any]) -> str:
    """Say what checking found.

    Example:
        >>> in_words({"rows_in": 10, "rejected": {"too hot": 2}, "gaps": {"a": 1, "b": 0},
        ...           "stuck_rows": {"t": 3}, "missing_values": {"t": 4}})
        '10 rows; rejected: 2 (too hot); 1 gaps; 3 stuck readings; 4 rows with missing readings'
    """
    rejected = "; ".join(f"{n:,} ({why})" for why, n in survey["rejected"].items()) or "none"
    return (
        f"{survey['rows_in']:,} rows; rejected: {rejected}; {sum(survey['gaps'].values())} gaps; "
        f"{sum(survey['stuck_rows'].values()):,} stuck readings; "
        f"{max(survey['missing_values'].values(), default=0):,} rows with missing readings"
    )


def play(
    plan: Plan,
    store: Store,
    *,
    port: int,
    progress: Progress,
    tell: Callable[[Happening], None],
    keep_up: bool = False,
) -> Scene:
    """Run all acts.

    Args:
        plan: What to demonstrate.
        store: An empty store.
        port: Where the server answers; 0 takes a free port.
        progress: For the first run.
        tell: Called with each happening.
        keep_up: Leave the server running.
    """
    line = plan.early
    story = Story(store, line.name, tell)
    story.act("Data")
    story.say("fetch the records and check every row there is")
    progress.stage("check")
    survey = check_all(line, store, progress)
    progress.close()
    story.say(in_words(survey))
    names = ", ".join(plan.entities)
    story.act("The first model")
    story.say(f"train on {names} until {plan.train_until[:10]}, gate, measure, package")
    first = run_line(line, store, reason="demo", progress=progress)
    progress.close()
    story.read()
    scene = Scene(plan=plan, line=line, store=store, story=story, first=first, survey=survey)
    if not first.deployed:
        return scene
    story.act("Live traffic, honest feedback")
    factory = Factory(store.path, port)
    try:
        scene.url, scene.pid = factory.url, factory.pid
        story.say(f"genba up answers at {factory.url}")
        with Client(factory.url) as client:
            _live(scene, client, progress)
    finally:
        progress.close()
        if not keep_up:
            factory.stop()
    return scene


def _live(scene: Scene, client: Client, progress: Progress) -> None:
    plan, line, store, story = scene.plan, scene.line, scene.store, scene.story
    manifest = decode(Manifest, store.ledger.get("package", str(scene.first.package)))
    traffic = load_traffic(line, manifest.settings, plan.train_until, plan.live_until)
    player = Player(client, line.name, traffic, days_per_s=plan.days_per_s, tell=progress.step)
    pace = f"{plan.days_per_s:g} days a second"
    story.say(f"replay of {len(traffic):,} records from {player.date} on, {pace}")
    progress.stage("replay")
    day_shift = Operator(client, line.name, name="day-shift", wrong=plan.mistakes, seed=1)
    scene.operators.append(day_shift)
    _operate(scene, player, day_shift)
    story.act("Poisoned feedback")
    night_shift = Operator(client, line.name, name="night-shift", wrong=plan.poison, seed=2)
    night_shift.skip_to(player.alarms)
    scene.operators.append(night_shift)
    _poison(scene, player, night_shift)
    story.act("Drills")
    for name, fault in plan.drills.items():
        _settle(scene, player)
        story.say(f"drill: the stable package gets a twin with a fault ({name})", player.date)
        done = drill(name, fault, store=store, story=story, player=player, line=line.name)
        scene.drills.append(done)
    scene.predictions, scene.failed = player.predictions, player.failed
    scene.alarms = len(player.alarms)
    progress.close()
    story.act("Looking back")
    _look_back(scene, player)


def _operate(scene: Scene, player: Player, operator: Operator) -> None:
    """Live months with honest feedback, until a challenger has been promoted."""
    for days in _days(scene, player, operator):
        promoted = scene.story.find("deploy", having=_is("promote"))
        if promoted:
            scene.promoted = promoted.subject
            scene.canary = scene.story.find("deploy", having=_is("canary"))
            return
        if days >= scene.plan.patience_days:
            break
    scene.story.say("no challenger was promoted in the time given", player.date)


def _poison(scene: Scene, player: Player, operator: Operator) -> None:
    """Live months in which many answers say the opposite, until a run has judged them."""
    story, wrong = scene.story, scene.plan.poison
    story.say(f"{operator.name} takes over; {wrong:.0%} of its labels are wrong", player.date)
    sent_at = None
    for days in _days(scene, player, operator):
        if sent_at is None and operator.sent:
            sent_at = story.seq
        scene.poisoned = _judged(story, sent_at)
        if scene.poisoned:
            return
        if days >= scene.plan.patience_days:
            break
    story.say("no run was started on the poisoned labels in the time given", player.date)


def _days(scene: Scene, player: Player, operator: Operator) -> Iterator[int]:
    """Replay day after day with an operator who answers late; yields how many have passed.

    A run that takes long stops the clock: a slow machine must not train through all of the months.
    """
    story, late_ms, training = scene.story, scene.plan.late_days * DAY_MS, 0
    for days, date in enumerate(player.days()):
        operator.answer(player.alarms, player.now_ms - late_ms)
        story.read(date)
        training = training + 1 if story.is_training else 0
        if training == scene.plan.training_days:
            story.wait_for_run(_LONGEST_RUN_S, date)
        yield days


def _settle(scene: Scene, player: Player) -> None:
    """Go on until no challenger is trained or judged: beside a faulty twin any model looks good."""
    for days, date in enumerate(player.days()):
        scene.story.read(date)
        busy = scene.story.is_training or scene.story.is_judging
        if not busy or days >= scene.plan.patience_days:
            return


def _judged(story: Story, sent_at: int | None) -> Event | None:
    """Return the end of the first run that was asked for after the wrong labels had come in."""
    asked = None if sent_at is None else story.find("trigger", after=sent_at)
    started = asked and story.find("run.started", after=asked.seq)
    if not started:
        return None
    run = started.subject
    return story.find("run.finished", after=started.seq, having=lambda e: e.subject == run)


def _look_back(scene: Scene, player: Player) -> None:
    """Trace one alarm and ask for the status, as a user would."""
    home = scene.store.path
    if player.alarms:
        scene.trace = ask(home, "trace", player.alarms[-1].prediction)
        scene.story.say(f"genba trace {player.alarms[-1].prediction} walked back to its rows")
    scene.status = ask(home, "status")


def _is(action: str) -> Callable[[Event], bool]:
    return lambda event: event.body["action"] == action
