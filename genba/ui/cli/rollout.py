"""`genba approve` and `genba rollback`: a person decides."""

import getpass

from genba.core.problem import Problem
from genba.loop.state import LineState, advance, initial
from genba.stages.deploy import approve as record_approval
from genba.stages.deploy import deploy
from genba.store.signing import write_checkpoint
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.figures import short
from genba.ui.cli.lookup import find_record, known_line, open_home, stable_of
from genba.ui.cli.options import DEFAULT, Options


def approve(
    name: str,
    /,
    *,
    package: str = "",
    no: bool = False,
    comment: str = "",
    me: str = "",
    options: Options = DEFAULT,
) -> Answer:
    """Decide on what waits for a person.

    The controller (`genba up`) carries the decision out: it promotes the canary, or withdraws it.

    Args:
        name: The line.
        package: The package to decide on (default: the one that waits).
        no: Refuse it.
        comment: Why, for the ledger.
        me: Who decides (default: your login name).
        options: Common options.
    """
    with open_home(options) as store:
        line = known_line(store, name)
        state = advance(initial(line), store.ledger.events(line=name))
        chosen = find_record(store, ("package",), package, "package").id if package else None
        chosen = chosen or _waiting(name, state)
        event = record_approval(
            store, name, chosen, approved=not no, by=me or getpass.getuser(), reason=comment
        )
    word = "refused" if no else "approved"
    return Answer(
        data={"line": name, "package": chosen, "approved": not no, "event": event.seq},
        blocks=[
            heading(f"Package {short(chosen)} of {name} is {word}", mark="no" if no else "yes"),
            facts([("recorded", f"event {event.seq}, by {event.body['by']}")]),
        ],
        next=("genba up", f"genba status {name}"),
    )


def _waiting(name: str, state: LineState) -> str:
    if state.placed:
        return state.placed.package
    if state.candidate:
        return state.candidate.package
    raise Problem(
        "G501",
        f"Nothing of {name} waits for a person.",
        where=name,
        why="No package is in its canary or shadow, and none is about to be.",
        tries=[f"genba status {name}", "genba models"],
    )


def rollback(
    name: str, /, *, comment: str = "", me: str = "", options: Options = DEFAULT
) -> Answer:
    """Return to the package before, at once.

    A running server follows within a second. The package that is taken out is not offered again.

    Args:
        name: The line.
        comment: Why, for the ledger.
        me: Who decides (default: your login name).
        options: Common options.
    """
    with open_home(options) as store:
        bad = stable_of(store, known_line(store, name).name)
        by = me or getpass.getuser()
        reason = comment or f"rolled back by {by}"
        event = deploy(store, name, "roll_back", bad, reason=reason, by=by)
        write_checkpoint(store)
        now = stable_of(store, name)
    return Answer(
        data={"line": name, "taken_out": bad, "stable": now, "event": event.seq},
        blocks=[
            heading(f"{name} is back to package {short(now)}", mark="yes"),
            facts([("taken out", short(bad)), ("reason", reason), ("event", str(event.seq))]),
        ],
        next=(f"genba status {name}", f"genba trace {short(bad)}"),
    )
