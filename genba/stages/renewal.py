"""Documents renewed without training.

What an answer rests on is part of the package: signed, carried to devices, rolled back with it,
and found again from an answer by its trace. So documents that changed make another package, of the
same language model: its bytes are named by their digest and not written again.
"""

from dataclasses import dataclass
from typing import Final

from genba.core.digest import digest_bytes
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.rollout import fold
from genba.edge.assistant import ASSISTANT_FILE
from genba.edge.package import SAMPLE_FILE, LoadedPackage, encode_manifest
from genba.edge.passages import ENCODER_FILE, PASSAGES_FILE, VECTORS_FILE, read_shelf
from genba.edge.predict import Predictor
from genba.runs.progress import Progress, SilentProgress
from genba.stages import repack
from genba.stages.deploy import deploy
from genba.stages.documents import KIND, Indexed, index
from genba.stages.package import record_package
from genba.store.home import Store

_ENCODER_USERS: Final = ("student.safetensors", "rails.safetensors")  # besides documents
_MOMENT: Final = 0.5  # share of the traffic, for the instant between canary and stable


@dataclass(frozen=True, kw_only=True, slots=True)
class Refreshed:
    """What became of a renewal."""

    package: str  # that answers now, or will after its canary
    before: str  # that answered before; the same where nothing changed
    documents: str | None  # record of the documents; None where there are none
    passages: int
    embedded: int  # of them new
    refused: dict[str, int]

    @property
    def changed(self) -> bool:
        """Whether there is another package."""
        return self.package != self.before


def refresh(
    store: Store,
    line: Line,
    *,
    by: str,
    share: float = 0.0,
    progress: Progress | None = None,
) -> Refreshed:
    """Read a line's documents again, and let the package in production answer from them.

    The language model stays the one that passed its gates, so by default the new package takes its
    place at once; the ledger says who did it, and `genba rollback` goes back.

    Args:
        store: Where the line is.
        line: Whose documents.
        by: Who asks for it.
        share: Of the traffic that the new package gets as a canary first; 0 for all at once.
        progress: Who is told how far it is.

    Raises:
        Problem: G502 when nothing is in production, G655 when what is there is no assistant, G656
            while another package is tried out; and as `index` and `deploy`.
    """
    progress = progress or SilentProgress()
    rollout = fold(store.ledger.events(line=line.name, kinds=("deploy",)))
    if rollout.stable is None:
        raise _nothing(line.name)
    stable = rollout.stable.package
    if rollout.canary or rollout.shadow:
        raise _busy(line.name)
    made = index(store, line, progress)
    parent = repack.opened(store, stable)
    if ASSISTANT_FILE not in parent.files:
        raise _no_assistant(line.name, parent.manifest.task)
    draft = _with(store, parent, made)
    package = digest_bytes(encode_manifest(draft.manifest))
    if package != stable:
        progress.step("trying the package")
        _record(store, draft, stable, made)
        reason = f"the documents changed: {_told(made)}; the language model is the same"
        deploy(store, line.name, "canary", package, share=share or _MOMENT, reason=reason, by=by)
        if not share:
            deploy(store, line.name, "promote", package, reason=reason, by=by)
    body = {} if made is None else made.body
    return Refreshed(
        package=package,
        before=stable,
        documents=None if made is None else made.id,
        passages=int(body.get("passages", 0)),
        embedded=int(body.get("embedded", 0)),
        refused=dict(body.get("refused", {})),
    )


def _with(store: Store, parent: LoadedPackage, made: Indexed | None) -> LoadedPackage:
    """Return a package with other documents, which is written nowhere yet."""
    if made is not None:
        return repack.draft(store, parent, made.files, {})
    gone: dict[str, bytes | None] = {PASSAGES_FILE: None, VECTORS_FILE: None}
    if not any(name in parent.files for name in _ENCODER_USERS):
        gone[ENCODER_FILE] = None
    return repack.draft(store, parent, gone, {})


def _record(store: Store, draft: LoadedPackage, parent: str, made: Indexed | None) -> None:
    """Try a package as a device would, record and sign it."""
    predictor = Predictor(draft)
    try:
        if SAMPLE_FILE in draft.files:
            predictor.self_test()
    finally:
        predictor.engine.close()
    of = [("package", parent)] if made is None else [("package", parent), (KIND, made.id)]
    record_package(store, draft.manifest, of)


def _told(made: Indexed | None) -> str:
    if made is None:
        return "there are none any more"
    shelf = read_shelf(made.files[PASSAGES_FILE])
    return f"{len(shelf.documents)} with {len(shelf.passages)} passages"


def _nothing(line: str) -> Problem:
    return Problem(
        "G502",
        f"The line {line} has nothing in production.",
        where=line,
        why="Documents are read when the line is run; until then there is nothing to renew.",
        tries=[f"genba run {line}", "genba explain G502"],
    )


def _no_assistant(line: str, task: str) -> Problem:
    return Problem(
        "G655",
        f"The line {line} cannot answer from documents.",
        where=line,
        why=f"Its task is {task}; documents are for assistants.",
        tries=["genba new helpdesk", "genba explain G655"],
    )


def _busy(line: str) -> Problem:
    return Problem(
        "G656",
        f"Another package of the line {line} is being tried out.",
        where=line,
        why="A package with other documents would take its place, and it would prove nothing.",
        tries=[f"genba status {line}", f"genba documents refresh {line}  # when it is decided"],
    )
