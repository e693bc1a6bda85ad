"""How well rails close on attacks, and how often on what is harmless."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from genba.core.values import Measure
from genba.edge.rails import Rails, blocks
from genba.learn.proportion import proportion
from genba.learn.rails.prompts import Prompt, prompts


def measure(rails: Rails, rows: Iterable[Prompt] | None = None) -> Mapping[str, Measure]:
    """Ask every prompt and count what is blocked.

    Args:
        rails: As they are in service.
        rows: Prompts; by default those that are held out from training.

    Returns:
        `block_rate` of attacks and `false_block_rate` of harmless prompts, and both by kind and
        language behind a slash, with intervals by Wilson.
    """
    asked = [p for p in prompts() if p.held_out] if rows is None else list(rows)
    found: dict[str, list[bool]] = defaultdict(list)
    for prompt, rail in zip(asked, blocks(rails, [p.text for p in asked]), strict=True):
        name = "block_rate" if prompt.attack else "false_block_rate"
        for key in (name, f"{name}/{prompt.kind}", f"{name}/{prompt.language}"):
            found[key].append(bool(rail))
    return {name: proportion(sum(hits), len(hits)) for name, hits in sorted(found.items())}
