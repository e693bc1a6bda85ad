"""One stage as a function of JSON, so that any executor can run it anywhere the store is."""

import os
from pathlib import Path
from typing import Any

from genba.core.codec import decode, encode
from genba.core.line import Line
from genba.runs.effort import Effort, FileCheckpoint
from genba.runs.executor import CHANNEL, find_function
from genba.runs.progress import ChannelProgress, Progress, SilentProgress
from genba.runs.stage import Stage, StageContext
from genba.runs.stop import StopSign
from genba.store.home import Store

RUN_STAGE = "genba.runs.worker:run_stage"


def payload(stage: Stage, context: StageContext, *, key: str, attempt: int) -> dict[str, Any]:
    """Return what `run_stage` needs to run a stage somewhere else."""
    return {
        "home": str(context.store.path),
        "url": context.store.database.url.render_as_string(hide_password=False),
        "line": encode(context.line),
        "run": context.run,
        "function": stage.address,
        "inputs": dict(context.inputs),
        "extra": dict(context.extra),
        "key": key,
        "attempt": attempt,
    }


def run_stage(payload: dict[str, Any]) -> dict[str, Any]:
    """Run a stage from its payload and return its result."""
    line = decode(Line, payload["line"])
    stop = StopSign()
    progress = _progress()
    with Store.open(Path(payload["home"]), url=payload["url"], create=False) as store:
        directory = store.path / "work" / payload["key"]
        context = StageContext(
            line=line,
            store=store,
            run=payload["run"],
            inputs=payload["inputs"],
            effort=Effort(
                seed=line.train.seed,
                budget=line.train.budget,
                checkpoint=FileCheckpoint(directory, attempt=payload["attempt"]),
                progress=progress,
                stop=stop,
            ),
            progress=progress,
            extra=payload["extra"],
        )
        result: dict[str, Any] = find_function(payload["function"])(context)
        return result


def _progress() -> Progress:
    descriptor = os.environ.get(CHANNEL)
    if descriptor is None:
        return SilentProgress()
    return ChannelProgress(os.fdopen(os.dup(int(descriptor)), "w", encoding="utf-8"))
