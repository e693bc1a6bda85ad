"""`genba export edge`: a signed release for devices, and what was decided about it."""

from pathlib import Path
from typing import Any

from rich.console import RenderableType

from genba.core.codec import encode
from genba.core.values import EngineChoice
from genba.runs.progress import ConsoleProgress
from genba.stages.edge_export import Exported, Order, export_edge
from genba.store.home import Store
from genba.store.oms import PUBLIC_FILE
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.figures import moment, seconds, short, size


def write_release(store: Store, order: Order) -> Answer:
    """Write the release of a line.

    Raises:
        Problem: As `genba.stages.edge_export.export_edge`.
    """
    folder = order.folder
    progress = ConsoleProgress()
    try:
        made = export_edge(store, order, progress)
    finally:
        progress.close()
    trusts = (
        f"genba-edge trust {store.path / PUBLIC_FILE} --fingerprint {made.key.fingerprint[:16]}"
    )
    if order.key is not None:
        trusts = f"openssl ec -in {order.key} -pubout -out edge-key.pub.pem"
    number = made.release.statement.release
    return Answer(
        data=_data(made, folder),
        blocks=[
            heading(f"{folder} is release {number} of {order.line}", mark="yes"),
            facts(_facts(made)),
        ],
        next=(
            trusts,
            f"genba-edge verify {folder}",
            f"genba-edge self-test {folder}",
        ),
    )


def _data(made: Exported, folder: Path) -> dict[str, Any]:
    release = made.release
    passed = release.safety is not None
    return {
        "folder": str(folder),
        "line": release.statement.line,
        "release": release.statement.release,
        "package": release.package.id,
        "root": release.signed.root,
        "key": made.key.fingerprint,
        "key_made": made.key.made,
        "statement": encode(release.statement),
        "safety": passed,
        "bytes": dict(made.sizes),
        "seconds": made.seconds,
    }


def _facts(made: Exported) -> list[tuple[str, RenderableType]]:
    release, stated = made.release, made.release.statement
    p99 = stated.measures.get("latency_ms_p99")
    here = f"{p99} p99" if p99 else "nothing; devices test it before they use it"
    expires = moment(stated.expires_ms) if stated.expires_ms else "never; --days sets a date"
    key = f"{made.key.fingerprint[:16]}…  {made.key.path}"
    rows: list[tuple[str, RenderableType]] = [
        ("package", short(release.package.id)),
        ("target", f"{stated.target}, {stated.standing}: {here}"),
        ("engine", _engine(stated.engine)),
        ("deadline", f"{stated.deadline_ms:g} ms (p99)" if stated.deadline_ms else "none stated"),
        ("expires", expires),
        ("safety", "envelope, with its fault matrix" if release.safety else "no safety manifest"),
        ("signed", f"{len(release.signed.files)} files, sha256 {release.signed.root[:16]}…"),
        ("key", f"{key}  made just now; keep it" if made.key.made else key),
        ("size", ", ".join(f"{name} {size(n)}" for name, n in made.sizes.items())),
        ("took", seconds(made.seconds)),
    ]
    return rows


def _engine(choice: EngineChoice) -> str:
    """Return an engine and its settings as people write them."""
    rest = dict(choice.settings)
    precision = rest.pop("precision", None)
    words = [str(precision)] if precision else []
    words += [f"{name} {value}" for name, value in rest.items()]
    return ", ".join([choice.name, *words])
