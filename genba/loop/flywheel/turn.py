"""One turn of the flywheel: from what is asked to a package with a student, or a reason why not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.digest import digest_json
from genba.core.ids import new_id
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.rollout import fold
from genba.data.view import DatasetView
from genba.edge.encoder import Encoder
from genba.edge.package import TALK_FILE, LoadedPackage
from genba.edge.predict import open_engine
from genba.edge.student import ANSWERS_FILE, STUDENT_FILE, Known, Route, normalised
from genba.loop.flywheel.asked import Asked, Traffic, halves, traffic
from genba.loop.flywheel.proof import Proof, prove
from genba.loop.flywheel.routing import learn_route, lessons
from genba.loop.flywheel.trial import TOGETHER, Trial, ask, quality
from genba.runs.progress import Progress
from genba.stages.deploy import NOT_FITTING, deploy
from genba.stages.repack import draft, opened, repacked
from genba.stages.students import encoder_for, files_with, knowledge, known, pairs_of
from genba.store.home import Store

KIND: Final = "flywheel"  # of the record in the ledger
BY: Final = "flywheel"
_FEWEST: Final = 20  # questions, half of which are learned from
_SHOWN: Final = 8

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What somebody wants of a turn."""

    questions: int = 120  # that are asked of the language model, at most
    replay: bool = False  # even where traffic was captured
    hold: bool = False  # make the package, but leave production as it is
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What came of it."""

    record: str
    package: str  # that the student was made for
    made: str | None  # the package with the student; None where the proof does not hold
    canary: float | None  # share of the traffic that it answers now; None where it waits
    waits: str  # why it is no canary
    traffic: Traffic
    known: int  # questions with approved answers that the student knows
    bar: float
    proof: Proof
    moved: tuple[str, ...]  # some questions that the student took over
    left: tuple[str, ...]  # and some that stay with the language model


def turn(store: Store, line: Line, wish: Wish, progress: Progress) -> Turn:
    """Turn the flywheel once.

    Args:
        store: Where the line is.
        line: A line whose package is a language model.
        wish: How.
        progress: Who is told how far it is.

    Raises:
        Problem: G584 when the line has no language model in service, G585 when it has too few
            questions with approved answers.
    """
    package = _in_service(store, line)
    view = DatasetView.open(store, package.manifest.dataset, line)
    pairs = pairs_of(view)
    seen = traffic(store, line.name, pairs, most=wish.questions, replay=wish.replay, seed=wish.seed)
    _enough(line, len(known(pairs)), len(seen.asked))
    learn, held_out = halves(seen.asked)
    model = encoder_for(package.files, package.manifest.settings, progress)
    encoder = Encoder(model)
    try:
        facts = knowledge(known(pairs), encoder.embed)
        alone = draft(store, package, {STUDENT_FILE: None, ANSWERS_FILE: None}, {})
        progress.step("asking the language model alone")
        first, second = _asked(alone, ((learn, TOGETHER), (held_out, 1)), progress)
        taught = lessons(facts, learn, first.answers, encoder.embed)
        route = learn_route(taught.features, taught.difference)
        with_student = _with_student(store, package, model, (facts, route))
        progress.step("asking with the student")
        (after,) = _asked(with_student, ((held_out, 1),), progress)
        proof = prove(
            held_out,
            _known(facts, held_out),
            (second, quality(second.answers, held_out, encoder.embed)),
            (after, quality(after.answers, held_out, encoder.embed)),
        )
    finally:
        encoder.close()
    made = _made(store, package, with_student, proof)
    canary, waits = _canary(store, line, made, wish, proof)
    found = Turn(
        record=new_id(KIND),
        package=package.id,
        made=made,
        canary=canary,
        waits=waits,
        traffic=seen,
        known=len(facts.questions),
        bar=route.bar,
        proof=proof,
        **_some(held_out, after),
    )
    _record(store, line, found)
    return found


def _in_service(store: Store, line: Line) -> LoadedPackage:
    stable = fold(store.ledger.events(line=line.name, kinds=("deploy",))).stable
    package = opened(store, stable.package) if stable else None
    if package is None or TALK_FILE not in package.files:
        why = "Its package is no language model." if package else "Nothing of it is in service."
        raise Problem(
            "G584",
            f"The line {line.name} has no language model in service.",
            where=line.name,
            why=f"{why} A flywheel takes over questions from one.",
            tries=["genba new helpdesk", f"genba run {line.name}", "genba explain G584"],
        )
    return package


def _enough(line: Line, pairs: int, asked: int) -> None:
    if pairs < 2 or asked < _FEWEST:
        raise Problem(
            "G585",
            f"The line {line.name} has too few questions with approved answers.",
            where=line.data.source,
            why=f"{pairs} that a student may know and {asked} to ask; it takes {_FEWEST}, and one "
            "question per conversation.",
            tries=[f"genba feedback {line.name} --help", "genba explain G585"],
        )


def _known(facts: Known, asked: Sequence[Asked]) -> npt.NDArray[np.bool_]:
    answers = {normalised(text) for text in facts.answers}
    return np.array([normalised(one.right) in answers for one in asked], dtype=bool)


def _asked(
    package: LoadedPackage, parts: Sequence[tuple[Sequence[Asked], int]], progress: Progress
) -> list[Trial]:
    """Ask a package lists of questions, so many at a time, after one that pays for buffers."""
    engine = open_engine(package)
    signature = package.manifest.signature
    try:
        ask(engine, signature, parts[0][0][:1], lambda *_: None)
        return [ask(engine, signature, part, progress.step, together=n) for part, n in parts]
    finally:
        engine.close()


def _with_student(
    store: Store, package: LoadedPackage, encoder: bytes, student: tuple[Known, Route]
) -> LoadedPackage:
    facts, route = student
    chosen = {"weight": list(route.weight), "offset": route.offset, "bar": route.bar}
    files: dict[str, bytes | None] = {**files_with(package.files, facts, chosen, encoder)}
    return draft(store, package, files, {"student": {"questions": len(facts.questions)}})


def _made(
    store: Store, package: LoadedPackage, with_student: LoadedPackage, proof: Proof
) -> str | None:
    """Record the package with the student, if it is as good as the one without."""
    if not proof.holds:
        return None
    return repacked(store, package, with_student, (proof.gate(),)).id


def _canary(
    store: Store, line: Line, made: str | None, wish: Wish, proof: Proof
) -> tuple[float | None, str]:
    """Let the package answer its first share of the traffic."""
    if made is None:
        return None, "the proof does not hold"
    if wish.hold:
        return None, "it was to be held"
    now = fold(store.ledger.events(line=line.name, kinds=("deploy",)))
    if now.canary or now.shadow:
        return None, "another package is being tried"
    try:
        deploy(
            store,
            line.name,
            "canary",
            made,
            share=line.rollout.canary,
            reason=proof.gate().reason,
            by=BY,
            key=digest_json([BY, made]),
        )
    except Problem as problem:
        if problem.code != NOT_FITTING:
            raise
        return None, problem.what
    return line.rollout.canary, ""


def _some(held_out: Sequence[Asked], after: Trial) -> dict[str, tuple[str, ...]]:
    """Return some questions of either kind, those asked most often first."""
    order = sorted(range(len(held_out)), key=lambda at: -held_out[at].count)
    found = {
        name: [held_out[at].text for at in order if (after.by[at] == "student") is taken]
        for name, taken in (("moved", True), ("left", False))
    }
    return {name: tuple(texts[:_SHOWN]) for name, texts in found.items()}


def _record(store: Store, line: Line, found: Turn) -> None:
    body: dict[str, Any] = {
        "package": found.package,
        "made": found.made,
        "traffic": {
            "kind": found.traffic.kind,
            "asked": len(found.traffic.asked),
            "seen": found.traffic.seen,
            "without": found.traffic.without,
        },
        "known": found.known,
        "bar": found.bar,
        "proof": found.proof.to_json(),
    }
    inputs = [("package", found.package), *([("package", found.made)] if found.made else [])]
    store.ledger.record(KIND, found.record, body, line=line.name, inputs=inputs)
