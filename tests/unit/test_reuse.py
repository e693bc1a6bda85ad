"""What decides whether a stage is reused, and that a reused run imports next to nothing."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from genba.catalog import DRILLS, ENGINES, LIBRARIES, TASKS
from genba.core import resolve as resolving
from genba.core.line import Data, Line
from genba.core.resolve import resolve
from genba.runs.stage import Stage
from genba.stages import prepare, reuse
from genba.stages.pipeline import stages_for

ROOT = Path(__file__).parents[2]
HEAVY = {"sklearn", "scipy", "onnx", "onnxruntime", "openvino", "skl2onnx", "polars", "pyarrow"}


@pytest.mark.parametrize("task", TASKS)
def test_what_a_task_uses_is_known_without_importing_it(task: str) -> None:
    known = reuse.task_code(task)
    assert all(
        f"{use}.".startswith(tuple(f"{k}." for k in known)) for use in resolve("task", task).uses
    )


class Elsewhere:
    """A task of another package."""

    uses: ClassVar[tuple[str, ...]] = ("torch", "genba.tasks.sensor.anomaly")


def test_a_task_from_elsewhere_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"elsewhere": f"{__name__}:Elsewhere"}
    monkeypatch.setattr(resolving, "names", lambda _: table)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert reuse.task_code("elsewhere") == (__name__, *Elsewhere.uses)


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - DRILLS))
def test_the_version_that_is_looked_up_is_the_one_the_engine_says(engine: str) -> None:
    pytest.importorskip(LIBRARIES[engine])
    looked_up = reuse.engine_versions((engine,))[engine]
    # OpenVINO's package appends nothing, its library a build number.
    assert resolve("engine", engine).version().startswith(looked_up.partition("-")[0])


def test_an_engine_whose_library_is_not_in_the_catalog_is_asked() -> None:
    assert reuse.engine_versions(("faulty",)) == {"faulty": "3"}
    assert "faulty" not in reuse.engine_versions()


def test_every_stage_is_found_where_its_address_says() -> None:
    line = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))
    stages = stages_for(line)
    assert [s.name for s in stages] == ["prepare", "train", "evaluate", "optimize", "package"]
    for stage in stages:
        module, _, name = stage.address.partition(":")
        assert (stage.module, name) == (f"genba.stages.{stage.name}", stage.name)
        loaded = Stage(stage.name, getattr(importlib.import_module(module), name))
        assert loaded.address == stage.address


def test_a_stage_may_be_a_function_or_its_address() -> None:
    assert Stage("prepare", prepare.prepare).address == "genba.stages.prepare:prepare"

    def double(context: Any) -> dict[str, Any]:
        return {"run": context}

    assert Stage("double", double).call("r") == {"run": "r"}  # type: ignore[arg-type]  # not looked at


REUSE = """
import sys, tempfile
from pathlib import Path
from genba.core.line import Data, Line
from genba.runs.effort import Effort
from genba.runs.keys import stage_key
from genba.runs.progress import SilentProgress
from genba.runs.stage import StageContext
from genba.stages.pipeline import stages_for
from genba.store.home import Store

folder = Path(tempfile.mkdtemp())
(folder / "pump.csv").write_text("a,b\\n1,2\\n")
line = Line(name="pump", task="sensor.anomaly", data=Data(source=f"files:{folder}/pump.csv"))
with Store.open(folder / "home") as store:
    for stage in stages_for(line):
        results = {name: {"model": "m"} for name in stage.after}
        context = StageContext(line=line, store=store, run="r", inputs=results,
                               effort=Effort.simple(), progress=SilentProgress())
        stage_key(stage.name, uses=(stage.module, *stage.uses), config=stage.config(context),
                  inputs=results, seed=0)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_keys_of_a_line_are_found_without_heavy_libraries() -> None:
    """Those take longer to import than everything else that a reused run does."""
    done = subprocess.run(
        [sys.executable, "-c", REUSE],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) & HEAVY == set()
