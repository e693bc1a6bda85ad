"""A kind of one's own, from `genba new` to `genba check` and a run, as an outsider would do it."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from genba.ui.cli.example import LINE, rows
from genba.ui.cli.scaffold import SCAFFOLDS

ROOT = Path(__file__).parents[2]
NAMES = {"task": "my-task", "engine": "my.engine", "source": "mysource", "target": "2nd-target"}


def genba(*argv: str, here: Path, site: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Type a command in a process of its own, with what is installed in `site`."""
    found = os.pathsep.join(map(str, filter(None, [ROOT, site])))
    done = subprocess.run(
        [sys.executable, "-m", "genba", *argv, "--json"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": found, "NO_COLOR": "1"},
        capture_output=True,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def installed(package: Path, site: Path) -> Path:
    """Put a package where an installation would: its modules, and what it registers."""
    project = tomllib.loads((package / "pyproject.toml").read_text())
    (module,) = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    shutil.copytree(package / module, site / module)
    about = site / f"{module}-{project['project']['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['project']['name']}\n")
    groups = project["project"]["entry-points"].items()
    lines = [f"[{group}]\n{k} = {v}\n" for group, table in groups for k, v in table.items()]
    (about / "entry_points.txt").write_text("".join(lines))
    return site


@pytest.mark.parametrize("kind", SCAFFOLDS)
def test_what_new_writes_passes_check(kind: str, tmp_path: Path) -> None:
    name = NAMES[kind]
    assert genba("new", kind, name, here=tmp_path)[0] == 0
    assert genba("check", name, here=tmp_path)[1]["problem"]["code"] == "G105"
    site = installed(tmp_path / name, tmp_path / "site")
    code, found = genba("check", name, here=tmp_path, site=site)
    assert code == 0, found
    assert (found["kind"], found["name"], found["ok"]) == (kind, name, True)
    assert len(found["checks"]) > 3


@pytest.mark.slow
def test_a_line_runs_on_kinds_from_another_package(tmp_path: Path) -> None:
    """Built and installed by pip, named in a line file, and chosen."""
    site = tmp_path / "site"
    for kind, name in NAMES.items():
        assert genba("new", kind, name, here=tmp_path)[0] == 0
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
            *("--no-build-isolation", "--target", str(site)),
            *(str(tmp_path / name) for name in NAMES.values()),
        ],
        check=True,
        capture_output=True,
    )
    header, *body = rows().splitlines()
    with (tmp_path / "pump.jsonl").open("w") as file:
        for line in body:
            pairs = zip(header.split(","), line.split(","), strict=True)
            file.write(json.dumps({k: number(v) for k, v in pairs}) + "\n")
    text = LINE.replace("files:pump.csv", f"{NAMES['source']}:pump.jsonl")
    text = text.replace("sensor.anomaly", NAMES["task"])
    (tmp_path / "pump.toml").write_text(text)
    settings = [f"target.device={NAMES['target']}", f'target.engines=["{NAMES["engine"]}"]']
    given = [word for setting in settings for word in ("--set", setting)]
    code, found = genba("run", "pump.toml", *given, here=tmp_path, site=site)
    assert (code, found["outcome"]) == (0, "done"), found
    again, reused = genba("run", "pump.toml", *given, here=tmp_path, site=site)
    assert (again, {stage["reused"] for stage in reused["stages"]}) == (0, {True})


def number(text: str) -> float | str | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
