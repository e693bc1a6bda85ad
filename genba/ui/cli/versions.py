"""`genba models`: what was trained and packaged."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from genba.core.rollout import Rollout
from genba.store.ledger import Record
from genba.ui.cli.answer import Answer, heading, passed, table
from genba.ui.cli.figures import measure, moment, short
from genba.ui.cli.lookup import known_line, open_home, rollout_of
from genba.ui.cli.options import DEFAULT, Options

_MOST_MEASURES: Final = 3


def models(name: str = "", /, *, options: Options = DEFAULT) -> Answer:
    """List model versions and packages.

    Args:
        name: Of one line only.
        options: Common options.
    """
    with open_home(options) as store:
        line = known_line(store, name).name if name else None
        packages = store.ledger.find("package", line=line)
        trained = store.ledger.find("model", line=line)
        roles = {r.line: rollout_of(store, r.line) for r in packages}
    packaged = {r.body.get("model") for r in packages}
    rows = [[*_package_row(r, roles[r.line])] for r in packages]
    rows += [_model_row(r) for r in trained if r.id not in packaged]
    plain = [_plain_package(r, roles[r.line]) for r in packages]
    shown: list[RenderableType] = [
        table(
            ["made", "line", "model", "package", "gates", "measured", "role"],
            rows,
            whole=("model", "package"),
        )
        if rows
        else heading("No model was trained here yet")
    ]
    return Answer(
        data={"packages": plain, "models": [_plain_model(r) for r in trained]},
        blocks=shown,
        next=(f"genba trace {short(packages[0].id)}",) if packages else ("genba run LINE",),
    )


def _role(package: str, rollout: Rollout) -> str:
    for role in ("stable", "canary", "shadow"):
        placed = getattr(rollout, role)
        if placed and placed.package == package:
            return role
    if package in rollout.condemned:
        return "taken out"
    return "previous" if package == rollout.previous else ""


def _package_row(record: Record, rollout: Rollout) -> list[RenderableType]:
    verdict = record.body.get("verdict") or {}
    return [
        moment(record.time_ms),
        record.line,
        short(str(record.body.get("model", ""))),
        short(record.id),
        passed(bool(verdict.get("passed"))),
        _measured(verdict),
        Text(_role(record.id, rollout), style="bold"),
    ]


def _model_row(record: Record) -> list[RenderableType]:
    return [moment(record.time_ms), record.line, short(record.id), "-", "", "not packaged", ""]


def _measured(verdict: Mapping[str, Any]) -> str:
    gates = verdict.get("gates", [])[:_MOST_MEASURES]
    return "\n".join(f"{g['name']} {measure(g['measure'])}" for g in gates)


def _plain_package(record: Record, rollout: Rollout) -> dict[str, Any]:
    body = record.body
    return {
        "package": record.id,
        "line": record.line,
        "made_ms": record.time_ms,
        "model": body.get("model"),
        "dataset": body.get("dataset"),
        "run": body.get("run"),
        "engine": body.get("engine"),
        "verdict": body.get("verdict"),
        "role": _role(record.id, rollout) or None,
    }


def _plain_model(record: Record) -> dict[str, Any]:
    return {"model": record.id, "line": record.line, "made_ms": record.time_ms, **record.body}
