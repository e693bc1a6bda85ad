"""What a stage is and what it is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from genba.core.line import Line
from genba.runs.effort import Effort
from genba.runs.executor import find_function
from genba.runs.progress import Progress
from genba.store.home import Store

Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageContext:
    """Everything a stage may read. What is not in here is not in its key."""

    line: Line
    store: Store
    run: str
    inputs: Mapping[str, Result]  # results of the stages named in `after`
    effort: Effort
    progress: Progress
    extra: Mapping[str, Any] = field(default_factory=dict)  # in the key only if `config` says so


StageFunction = Callable[[StageContext], Result]


def _nothing(_context: StageContext) -> Any:
    return {}


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run.

    A stage function takes a `StageContext` and returns a JSON object. If that has `stop`, a list
    of sentences, the run ends there as refused.

    Args:
        name: Its name in the run.
        function: A function of a module, so that another process can find it; or its
            "module:function", which is imported only when the stage is done and not reused.
        uses: Packages or modules whose source decides the result; the function's own module
            always counts. A name without a dot that is not `genba` is an installed library, which
            counts with its version.
        after: Stages whose results it reads; it sees no others.
        config: Everything else that decides the result, as JSON.
        line: Another line than that of the run, as for a variant of its model.
        alias: Under which name later stages find the result; its own if not given.
    """

    name: str
    function: StageFunction | str
    uses: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    config: Callable[[StageContext], Any] = _nothing
    line: Line | None = None
    alias: str = ""

    @property
    def address(self) -> str:
        """The function as "module:function".

        Example:
            >>> Stage("prepare", "genba.stages.prepare:prepare").address
            'genba.stages.prepare:prepare'
        """
        function = self.function
        if isinstance(function, str):
            return function
        return f"{function.__module__}:{function.__qualname__}"

    @property
    def module(self) -> str:
        """The module of the function."""
        return self.address.partition(":")[0]

    def call(self, context: StageContext) -> Result:
        """Do the stage in this process."""
        function = self.function
        if isinstance(function, str):
            function = cast(StageFunction, find_function(function))
        return function(context)
