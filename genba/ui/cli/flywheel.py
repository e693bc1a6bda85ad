"""`genba flywheel`: let a small model answer what it answers as well as the large one."""

from collections.abc import Iterable
from typing import Any, Final

from rich.console import RenderableType

from genba.core.line import Line
from genba.core.values import Bill, Measure
from genba.loop.flywheel.asked import CAPTURED, Traffic
from genba.loop.flywheel.proof import PER, Proof, enough
from genba.loop.flywheel.served import Served, served
from genba.loop.flywheel.turn import Turn, Wish, turn
from genba.runs.progress import ConsoleProgress
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import number, short
from genba.ui.cli.lookup import known_line, open_home
from genba.ui.cli.options import DEFAULT, Options

_NO: Final = 1


def flywheel(
    name: str,
    /,
    *,
    questions: int = 120,
    replay: bool = False,
    hold: bool = False,
    options: Options = DEFAULT,
) -> Answer:
    """Let a small model answer what it answers as well as the large one.

    Questions that have an approved answer are answered with it; a router learned from what both
    have answered says when, and the language model answers the rest. Only where a paired test on
    questions that were held out does not find it worse is a package made, and tried as a canary.

    Args:
        name: A line with a language model in service.
        questions: Different questions that the language model is asked, at most.
        replay: Replay the line's own questions in other words, even where traffic was captured.
        hold: Make the package, but leave what is in service as it is.
        options: Common options.
    """
    progress = ConsoleProgress()
    with open_home(options) as store:
        line = known_line(store, name)
        before = served(store, line.name)
        try:
            made = turn(store, line, Wish(questions=questions, replay=replay, hold=hold), progress)
        finally:
            progress.close()
    return _answer(line, made, before)


def _answer(line: Line, made: Turn, before: Served) -> Answer:
    proof = made.proof
    if made.made:
        what = f"A student answers {_percent(proof.share)} of what {line.name} is asked"
    else:
        what = f"The language model of {line.name} goes on answering everything"
    blocks: list[RenderableType] = [
        heading(what, mark="yes" if made.made else "no"),
        facts(_facts(made, before)),
        _bills(proof),
        *_examples(made),
    ]
    following = _next(line, made)
    return Answer(
        data=_data(line, made, before),
        blocks=blocks,
        next=following,
        exit_code=0 if made.made else _NO,
    )


def _facts(made: Turn, before: Served) -> Iterable[tuple[str, RenderableType]]:
    proof = made.proof
    yield "questions", _asked(made.traffic)
    yield "held out", f"{proof.questions} of them, neither student nor router has learned from"
    yield "student", f"{made.known} approved questions; answers from {number(made.bar)} on"
    yield "share", f"{_percent(proof.share)} of the questions are taken over"
    if proof.share_known.n:
        yield "", f"{_percent(proof.share_known)} of those with an answer that it knows"
    if proof.share_new.n:
        yield "", f"{_percent(proof.share_new)} of those that nobody had approved an answer to"
    yield (
        "quality",
        f"{proof.before.value:.3f} with the language model alone, "
        + (f"{proof.after.value:.3f} with the student (1 = the approved answer)"),
    )
    verdict = "holds" if proof.holds else "does not hold"
    yield "equality", f"{verdict}: difference {proof.difference}, paired"
    if proof.share.value:
        yield "", f"{proof.taken} where the student answers"
    spared = "" if enough(proof) else "; nine tenths are not reached"
    yield "cost", f"{_percent(proof.spared)} of the CPU time per question is spared{spared}"
    if proof.spared_known.n:
        yield "", f"{_percent(proof.spared_known)} for questions with an answer that it knows"
    if made.made:
        yield "package", f"{short(made.made)}, made of {short(made.package)}"
        share = f"{made.canary:.0%} of the traffic" if made.canary else f"no: {made.waits}"
        yield "canary", share
    if before.answers:
        yield "so far", before.sentence


def _asked(traffic: Traffic) -> str:
    count = len(traffic.asked)
    if traffic.kind == CAPTURED:
        return (
            f"{count} different ones that were captured and whose approved answer is known "
            f"(of {traffic.seen}; {traffic.without} have none)"
        )
    return (
        f"{count} of the line's own, replayed in other words by rules: no customer asked them, and "
        "customers vary more"
    )


def _percent(measure: Measure) -> str:
    text = f"{measure.value:.1%}"
    if measure.low is None or measure.high is None:
        return text
    return f"{text} [{measure.low:.1%} to {measure.high:.1%}]"


def _bills(proof: Proof) -> RenderableType:
    rows = [
        ("CPU time", _cpu(proof.bill_before), _cpu(proof.bill_after)),
        ("energy", str(proof.bill_before.joules), str(proof.bill_after.joules)),
        ("money", str(proof.bill_before.cost_usd), str(proof.bill_after.cost_usd)),
        ("carbon", str(proof.bill_before.carbon_g), str(proof.bill_after.carbon_g)),
    ]
    return table(("bill", f"before, {PER:,} questions", "after"), rows)


def _cpu(bill: Bill) -> str:
    return f"{number(bill.cpu_seconds)} s (measured)"


def _examples(made: Turn) -> Iterable[RenderableType]:
    for name, texts in (("taken over", made.moved), ("left", made.left)):
        if texts:
            yield facts([(name if not at else "", text) for at, text in enumerate(texts[:4])])


def _next(line: Line, made: Turn) -> tuple[str, ...]:
    if made.canary:
        return ("genba up", f"genba approve {line.name}", f"genba rollback {line.name}")
    if made.made:
        return (f"genba status {line.name}", f"genba trace {short(made.made)}")
    return (f"genba feedback {line.name} --help", f"genba flywheel {line.name} --questions 240")


def _data(line: Line, made: Turn, before: Served) -> dict[str, Any]:
    return {
        "line": line.name,
        "record": made.record,
        "package": made.package,
        "made": made.made,
        "canary": made.canary,
        "waits": made.waits,
        "traffic": {
            "kind": made.traffic.kind,
            "asked": len(made.traffic.asked),
            "seen": made.traffic.seen,
            "without": made.traffic.without,
        },
        "known": made.known,
        "bar": made.bar,
        "proof": made.proof.to_json(),
        "moved": list(made.moved),
        "left": list(made.left),
        "served": before.to_json(),
    }
