"""`genba run`: a line from data to a package."""

import shlex
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from genba.core.problem import Problem
from genba.runs.progress import ConsoleProgress, Progress, SilentProgress
from genba.stages.pipeline import run_line
from genba.ui.cli.answer import Answer
from genba.ui.cli.lookup import file_or_name, known_line, open_home, rollout_of
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.run_report import report

Watch = Literal["auto", "no"]


@Parameter(name="*", show=False)
@dataclass(frozen=True, kw_only=True, slots=True)
class Controller:
    """What the controller of `genba up` says when it starts a run; not for people."""

    line: str = ""
    reason: str = "asked"
    dataset: str | None = None


_NOBODY: Final = Controller()


def run(
    line: str = "",
    /,
    *,
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    watch: Watch = "auto",
    controller: Controller = _NOBODY,
    options: Options = DEFAULT,
) -> Answer:
    """Run a line from data to a deployed package.

    Every stage whose inputs have not changed is reused; an interrupted run continues where it
    stopped. The first package that passes its gates is deployed; a later one waits for `genba up`
    to try it as a canary.

    Args:
        line: The line file, or the name of a line that was run before.
        set_: A setting to change for this run, path=value; may be repeated.
        watch: Progress on stderr: "auto" (a bar on a terminal, plain lines elsewhere) or "no".
        controller: What `genba up` passes.
        options: Common options.
    """
    if not (line or controller.line):
        raise Problem(
            "G110",
            "genba run needs a line file.",
            tries=["genba run pump.toml", 'genba new pump --from "data/*.csv"'],
        )
    progress: Progress = SilentProgress() if watch == "no" else ConsoleProgress()
    with open_home(options, create=True) as store:
        asked = controller.line
        chosen = known_line(store, asked) if asked else file_or_name(store, line, set_)
        try:
            outcome = run_line(
                chosen,
                store,
                reason=controller.reason,
                progress=progress,
                dataset=controller.dataset,
            )
        finally:
            progress.close()
        stable = rollout_of(store, chosen.name).stable
    production = stable.package if stable else None
    again = shlex.join([line or chosen.name, *(word for s in set_ for word in ("--set", s))])
    return report(chosen, outcome, again=again, production=production)
