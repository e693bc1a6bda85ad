"""`genba rails`: what the rails of an assistant have closed on."""

from typing import Final

from rich.console import RenderableType

from genba.core.codec import encode
from genba.data.rails_audit import Audit, closed
from genba.edge.rails import RAILS
from genba.learn.proportion import proportion
from genba.ui.cli.answer import Answer, heading, table
from genba.ui.cli.figures import measure, when
from genba.ui.cli.lookup import known_line, open_home
from genba.ui.cli.options import DEFAULT, Options

#: Blocks of the assistant itself: rails that were late, or that failed.
_OTHERS: Final = {
    "budget": "a rail took too long",
    "broken": "a rail failed",
    "error": "a rail failed",
}


def rails(name: str, /, *, options: Options = DEFAULT) -> Answer:
    """Show what the rails of an assistant have closed on.

    Args:
        name: A line with a language model.
        options: Common options.
    """
    with open_home(options) as store:
        line = known_line(store, name)
        audit = closed(store, line.name)
    return _answer(line.name, audit)


def _answer(line: str, audit: Audit) -> Answer:
    count = sum(audit.rails.values())
    said = f"{count:,} of {audit.answered:,} answers of {line} were given by a rail"
    blocks: list[RenderableType] = [heading(said)]
    data = {"line": line, **encode(audit)}
    if count:
        share = proportion(count, audit.answered)
        data["share"] = encode(share)
        blocks.append(
            table(
                ("rail", "closed", "on"),
                [(n, f"{c:,}", {**RAILS, **_OTHERS}.get(n, "")) for n, c in audit.rails.items()],
                right=("closed",),
            )
        )
        newest = [
            (when(one.time_ms), one.rail, one.prediction, " ".join(one.question.split()))
            for one in audit.newest
        ]
        blocks.append(table(("when", "rail", "prediction", "question"), newest))
        blocks.append(heading(f"share: {measure(share)}", style="dim"))
    following = tuple(f"genba trace {one.prediction}" for one in audit.newest[:1])
    return Answer(data=data, blocks=blocks, next=following)
