"""`genba safety`: the fault matrix of a line's package, with and without its safety envelope."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from genba.core.codec import decode
from genba.core.line import Line
from genba.core.values import Manifest
from genba.data.view import DatasetView
from genba.runs.progress import ConsoleProgress
from genba.stages.assurance import assure
from genba.store.home import Store
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import short
from genba.ui.cli.lookup import file_or_name, open_home, stable_of
from genba.ui.cli.options import DEFAULT, Options

_COLUMNS: Final = ("cell", "severity", "without", "with", "at most", "limit", "noticed by", "")
_LAYERS: Final = 2  # named per cell
_FEW: Final = 8  # residual risks that are shown one by one


def safety(name: str, /, *, options: Options = DEFAULT) -> Answer:
    """Inject faults into a line's package, with and without its safety envelope.

    The envelope is fitted on training and calibration rows, the faults are put into test rows. The
    result is recorded and reused; `genba export edge` writes it into the package. Exit code 1
    where a cell fails that the line does not accept. Not a safety-rated function.

    Args:
        name: The line's name, or its file: its table [safety] counts, nothing is run.
        options: Common options.
    """
    with open_home(options) as store:
        line = file_or_name(store, name)
        package = stable_of(store, line.name)
        found = _assured(store, line, package)
    return Answer(
        data=dict(found),
        blocks=_blocks(line, found),
        next=_next(line, found),
        exit_code=1 if found["failing"] else 0,
    )


def _assured(store: Store, line: Line, package: str) -> Mapping[str, Any]:
    manifest = decode(Manifest, store.ledger.get("package", package))
    view = DatasetView.open(store, manifest.dataset, line)
    progress = ConsoleProgress()
    progress.stage("safety")
    try:
        return assure(store, package, line, view, progress=progress, strict=False)
    finally:
        progress.close()


def _blocks(line: Line, found: Mapping[str, Any]) -> list[RenderableType]:
    failing: Sequence[str] = found["failing"]
    rows = found["matrix"]
    known = sum(row["accepted"] and not row["holds"] for row in rows)
    what = f"{sum(row['holds'] for row in rows)} of {len(rows)} faults covered, {known} accepted"
    what += f", {len(failing)} neither" if failing else ""
    blocks: list[RenderableType] = [
        heading(
            f"Safety envelope of {line.name}, package {short(found['package'])}: {what}",
            mark="no" if failing else "yes",
        ),
        Text(f"  {found['statement']}; after {found['pattern']}", style="dim"),
    ]
    if found["matrix"]:
        right = ("without", "with", "at most", "limit")
        cells = [_row(row) for row in rows]
        blocks.append(table(_COLUMNS, cells, right=right, whole=("cell", *right)))
        blocks.append(Text(f"  A failure: {found['failure']['is']}.", style="dim"))
        blocks.append(facts(_facts(found)))
    blocks.append(facts(_residual(found["residual"])))
    return blocks


def _row(row: Mapping[str, Any]) -> list[RenderableType]:
    mark = Text("✓", style="green")
    if not row["holds"]:
        mark = Text("accepted", style="yellow") if row["accepted"] else Text("✗", style="bold red")
    return [
        row["cell"],
        row["severity"],
        f"{row['failed_without']}/{row['episodes']}",
        f"{row['failed']}/{row['episodes']}",
        f"{row['upper']:.1%}",
        f"{row['limit']:.0%}",
        _noticed(row),
        mark,
    ]


def _noticed(row: Mapping[str, Any]) -> str:
    layers = ", ".join(list(row["layers"])[:_LAYERS])
    if not layers:
        return "nothing"
    after = row["noticed_after"]
    share = f"{row['noticed']:.0%} {layers}"
    return share if not after else f"{share} after {after:.3g}"


def _facts(found: Mapping[str, Any]) -> list[tuple[str, RenderableType]]:
    false, deadline, fallback = found["false_trips"], found["deadline"], found["fallback"]
    low, high = false["withheld_interval"]
    share = "no clean reading"
    if false["withheld"] is not None:
        share = f"{false['withheld']:.2%} [{low:.2%} to {high:.2%}] of {false['readings']:,} clean "
        share += f"readings withheld; at most {false['limit']:.2%}"
    rules = [f"without {rule['without']} ({rule['agreement']:.1%})" for rule in fallback["rules"]]
    return [
        ("episodes", "of real test rows each; at most: one-sided 95 %, Clopper and Pearson"),
        ("false trips", share),
        (
            "monitor",
            f"{deadline['monitor_us_p50']:.3g} us in median per answer; inference and monitor "
            f"{deadline['answer_ms_p999']:.3g} ms at p99.9, limit {deadline['limit_ms']:.4g} ms, "
            f"{deadline['late_share']:.2%} later (measured here, now)",
        ),
        ("fallback", ", then ".join(fallback["chain"])),
        ("rules", "; ".join(rules) or "none: no rule decides as the model does"),
        (
            "stood in",
            f"for {fallback['stood_in']:,} readings, of which {fallback['stood_in_wrong']:,} "
            "otherwise than the clean model",
        ),
    ]


def _residual(risks: Sequence[Mapping[str, Any]]) -> list[tuple[str, RenderableType]]:
    shown: list[tuple[str, RenderableType]] = [
        ("stays" if not i else "", f"{risk['risk']}: {risk['why']}{_known(risk)}")
        for i, risk in enumerate(risks[:_FEW])
    ]
    if len(risks) > _FEW:
        shown.append(("", f"and {len(risks) - _FEW} more in --json"))
    return shown


def _known(risk: Mapping[str, Any]) -> str:
    return " (accepted by the line)" if risk["accepted"] else ""


def _next(line: Line, found: Mapping[str, Any]) -> tuple[str, ...]:
    if found["failing"]:
        names = ", ".join(f'"{cell}"' for cell in found["failing"])
        return (
            f"[safety] accept = [{names}]  # in the line file, where these risks may stay",
            "genba explain G596",
        )
    return (f"genba export edge {line.name} --to DIR",)
