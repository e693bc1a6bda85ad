"""`genba doctor`: is this machine fit, and is the ledger what it was when it was written?"""

import importlib.util
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

from rich.console import RenderableType
from rich.text import Text

from genba.catalog import EXTRAS, KINDS
from genba.core.io import make_dirs_durable, write_durable
from genba.core.problem import Problem
from genba.core.resolve import names, resolve
from genba.store import signing
from genba.store.home import Store, home_path
from genba.targets.probe import load_average, probe
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import number, size
from genba.ui.cli.options import DEFAULT, Options

_LIBRARIES: Final = (
    "numpy", "polars", "pyarrow", "sqlalchemy", "onnx", "onnxruntime", "scikit-learn", "uvloop"
)  # fmt: skip
_LEAST_DISK: Final = 2 << 30  # bytes: a line with its packages, captures and a download
_SLOW_SYNC_MS: Final = 20.0
_SYNCS: Final = 9
_TAMPERED: Final = "G305"  # the page on a ledger that is not what was written

State = Literal["good", "note", "bad"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing the doctor looked at."""

    name: str
    state: State
    found: str
    tries: tuple[str, ...] = ()


def doctor(*, verify: bool = False, options: Options = DEFAULT) -> Answer:
    """Check this machine and, with --verify, the ledger.

    Args:
        verify: Compute the ledger's chain and the digest of every blob anew, and compare.
        options: Common options.
    """
    home = home_path(options.home)
    findings = [*_machine(), *_disk(home), *_libraries(), *_kinds()]
    if verify:
        findings += _verify(options)
    bad = [f for f in findings if f.state == "bad"]
    title = "This machine is fit" if not bad else f"{len(bad)} of {len(findings)} are not right"
    blocks: list[RenderableType] = [
        heading(title, mark="no" if bad else "yes"),
        table(["", "", ""], ([_mark(f.state), f.name, f.found] for f in findings)),
    ]
    tries = [step for f in findings if f.state != "good" for step in f.tries]
    if tries:
        blocks.append(facts([("try", Text("\n".join(dict.fromkeys(tries)), style="cyan"))]))
    return Answer(
        data={"ok": not bad, "home": str(home), "findings": [asdict(f) for f in findings]},
        blocks=blocks,
        next=() if verify else ("genba doctor --verify",),
        exit_code=3 if bad else 0,
    )


def _mark(state: State) -> Text:
    marks = {"good": ("✓", "green"), "note": ("●", "yellow"), "bad": ("✗", "bold red")}
    sign, style = marks[state]
    return Text(sign, style=style)


def _machine() -> Iterable[Finding]:
    machine = probe()
    yield Finding(name="python", state="good", found=platform.python_version())
    yield Finding(
        name="processor",
        state="good",
        found=f"{machine.processor}, {number(machine.cores)} cores may be used, "
        f"load {load_average():.1f}",
    )
    fast = ", ".join(machine.instructions) or "none that Genba knows"
    yield Finding(name="instructions", state="good", found=fast)
    few = machine.memory_mib < 1_500
    yield Finding(
        name="memory",
        state="note" if few else "good",
        found=f"{size(machine.memory_mib * 2**20)} may be used",
        tries=("genba run LINE --set train.budget.trials=4",) if few else (),
    )


def _disk(home: Path) -> Iterable[Finding]:
    place = next(p for p in (home, *home.parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    yield Finding(
        name="disk",
        state="good" if free >= _LEAST_DISK else "note",
        found=f"{size(free)} free at {place}",
        tries=() if free >= _LEAST_DISK else (f"df -h {place}",),
    )
    try:
        median_ms = _sync_ms(place)
    except Problem as problem:
        yield Finding(name="home", state="bad", found=problem.what, tries=problem.tries)
        return
    slow = median_ms > _SLOW_SYNC_MS
    yield Finding(
        name="durable write",
        state="note" if slow else "good",
        found=f"{median_ms:.2g} ms each (median of {_SYNCS})"
        + ("; every stage and capture waits for a few of these" if slow else ""),
    )


def _sync_ms(place: Path) -> float:
    """Time the store's own way of writing a small file."""
    with tempfile.TemporaryDirectory(dir=place, prefix=".genba-doctor-") as folder:
        make_dirs_durable(Path(folder))
        taken = []
        for _ in range(_SYNCS):
            begin = time.perf_counter()
            write_durable(Path(folder) / "probe", b"x" * 512)
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1_000


def _libraries() -> Iterable[Finding]:
    for library in _LIBRARIES:
        try:
            yield Finding(name=library, state="good", found=version(library))
        except PackageNotFoundError:
            yield Finding(
                name=library,
                state="bad",
                found="not installed",
                tries=("pip install genba",),
            )
    for module, extra in EXTRAS.items():
        present = importlib.util.find_spec(module) is not None
        yield Finding(
            name=f"[{extra}]",
            state="good" if present else "note",
            found=f"{module} is installed" if present else f"optional: {module} is not installed",
        )


def _kinds() -> Iterable[Finding]:
    """Import everything of the catalog, its own and what other packages add."""
    for kind in KINDS:
        good: list[str] = []
        missing: list[str] = []
        broken: list[str] = []
        tries: list[str] = []
        for name in names(kind):
            try:
                resolve(kind, name)
            except Problem as problem:
                missing.append(f"{name}: {problem.what}")
                tries += problem.tries
            except Exception as error:  # noqa: BLE001  a broken plug-in is what a doctor looks for
                broken.append(f"{name} is broken: {type(error).__name__}: {error}")
                tries.append(f"python -c 'import {names(kind)[name].partition(':')[0]}'")
            else:
                good.append(name)
        yield Finding(
            name=f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s",
            state="bad" if broken else "note" if missing else "good",
            found="; ".join(filter(None, [", ".join(good), *missing, *broken])),
            tries=tuple(tries),
        )


def _verify(options: Options) -> Iterable[Finding]:
    with Store.open(options.home, create=False) as store:
        chain = signing.verify(store)
        heads = len(signing.read_checkpoints(store))
        yield Finding(
            name="ledger",
            state="good" if chain.ok else "bad",
            found=f"{number(chain.events)} events, every digest as written; "
            f"{number(heads)} signed head{'' if heads == 1 else 's'}"
            if chain.ok
            else f"event {chain.first_bad}: {chain.reason}",
            tries=() if chain.ok else (f"genba explain {_TAMPERED}",),
        )
        yield _blobs(store)


def _blobs(store: Store) -> Finding:
    """Read every blob and compare it with its name."""
    count, total, damaged = 0, 0, []
    for digest in store.blobs.digests():
        count += 1
        total += store.blobs.size(digest)
        try:
            store.blobs.verify(digest)
        except Problem as problem:
            damaged.append(problem)
    if damaged:
        found = f"{len(damaged)} of {count} are damaged: {damaged[0].what}"
        return Finding(name="blobs", state="bad", found=found, tries=damaged[0].tries)
    return Finding(name="blobs", state="good", found=f"{number(count)} files, {size(total)}, whole")
