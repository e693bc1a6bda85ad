"""Run-time assurance of a package: fit its safety envelope, inject faults, write what is left.

After the pattern of ASTM F3269 (run-time assurance): monitors and recovery are made without the
model's help, and what they cover is measured, not claimed. Nobody has assessed the result against
that standard or any other: it is not a safety-rated function.
"""

from collections.abc import Mapping
from typing import Any, Final

from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.protocols import View
from genba.runs.keys import code_digest
from genba.runs.progress import Progress, SilentProgress
from genba.stages.assurance_pass import Pass
from genba.stages.repack import opened
from genba.store.home import Store

KIND: Final = "safety"
_CODE: Final = ("genba.edge.safety", "genba.learn.safety")
_PARTS: Final = (
    *("", "_pass", "_rows", "_plan", "_without", "_limits", "_model", "_episodes", "_faults"),
    *("_images", "_tables", "_pictures", "_matrix", "_clean", "_manifest"),
)


def assure(
    store: Store,
    package_id: str,
    line: Line,
    view: View,
    *,
    progress: Progress | None = None,
    strict: bool = True,
) -> dict[str, Any]:
    """Return the safety manifest of a package: the plan of its envelope and the evidence for it.

    The plan is fitted on training and calibration rows; the faults are put into test rows. The
    result is recorded, and read back for the same package, `[safety]` table and code.

    Args:
        store: Where the package is.
        package_id: Its id.
        line: States fallback, limits and what is accepted.
        view: The dataset of the package.
        progress: Told what is being done.
        strict: Refuse a package with a cell that fails and is not accepted.

    Raises:
        Problem: G596 for a failing cell (when `strict`), G597 for a fallback that shares what
            fails, G598 for a limit or cell that does not exist.
    """
    found = recorded(store, package_id, line)
    if found is None:
        made = Pass(opened(store, package_id), line, view, progress or SilentProgress()).run()
        found = made | {"key": _key(package_id, line)}
        store.ledger.record(
            KIND, digest_json(found), found, line=line.name, inputs=[("package", package_id)]
        )
    if strict:
        refuse_failing(found)
    return found


def recorded(store: Store, package_id: str, line: Line) -> dict[str, Any] | None:
    """Return the safety manifest that was made of a package before, None where nothing holds."""
    key = _key(package_id, line)
    for record in store.ledger.find(KIND, line=line.name):
        if record.body.get("key") == key:
            return dict(record.body)
    return None


def refuse_failing(manifest: Mapping[str, Any]) -> None:
    """Stop a package whose fault matrix has a failing cell that nobody has accepted.

    Raises:
        Problem: G596 with the cell and what to do about it.
    """
    failing = manifest["failing"]
    if not failing:
        return
    name = failing[0]
    rest = f" and {len(failing) - 1} more" if len(failing) > 1 else ""
    cells = {row["cell"]: row for row in manifest["matrix"]}
    names = ", ".join(f'"{cell}"' for cell in failing)
    raise Problem(
        "G596",
        f"The safety envelope fails on {name}{rest}.",
        where=manifest["line"],
        why=_why(cells[name]) if name in cells else manifest["false_trips"]["reason"],
        tries=[
            f"genba safety {manifest['line']}",
            f"[safety] accept = [{names}]  # a risk that is known and stays",
            "genba explain G596",
        ],
    )


def _why(row: Mapping[str, Any]) -> str:
    return (
        f"{row['about'].capitalize()}: {row['failed']} of {row['episodes']} episodes acted on a "
        f"wrong decision that nothing noticed, which bounds the rate at {row['upper']:.1%}; at "
        f"most {row['limit']:.1%} is allowed. Without the envelope it was {row['failed_without']}."
    )


def _key(package_id: str, line: Line) -> str:
    code = {name: code_digest(name) for name in _CODE}
    code |= {f"assurance{n}": code_digest(f"genba.stages.assurance{n}") for n in _PARTS}
    stated = {"checks": encode(line.data.checks), "limits": encode(line.target.limits)}
    return digest_json([package_id, encode(line.safety), stated, code])
