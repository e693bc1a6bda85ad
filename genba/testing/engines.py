"""The contract of an engine: the same answers as numpy, whatever the batch, and clear refusals."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array, Engine, JsonObject, Lowers, Spreads
from genba.core.resolve import resolve
from genba.edge.predict import difference
from genba.testing.checks import CheckResult, Checks, require, require_problem, run_checks
from genba.testing.graphs import (
    dense_batch,
    dense_graph,
    graph_with_outside_data,
    graph_with_unknown_operator,
    small_batch,
    small_graph,
    small_reference,
)

_CORES: Final = 2
_ROWS: Final = 257
_LONG_ROWS: Final = 10_000
_FEW_ROWS: Final = 4
_TOLERANCE: Final = {"float32": 1e-4, "bfloat16": 5e-2, "int8": 5e-2}
_SAME: Final = 1e-5
_THREADS: Final = 4
_CALLS: Final = 50


def check_engine(
    name: str, settings: Sequence[JsonObject] | None = None
) -> tuple[CheckResult, ...]:
    """Run an engine of the catalog through the contract.

    Args:
        name: Name in the catalog.
        settings: What to try instead of what the engine itself offers.
    """
    return run_checks(engine_checks(name, settings))


def engine_checks(name: str, settings: Sequence[JsonObject] | None = None) -> Checks:
    """Return the checks of an engine by name."""
    kind = resolve("engine", name)
    tried = settings if settings is not None else kind.candidates(_CORES)
    checks: dict[str, Callable[[], None]] = {
        "offers settings": partial(_offers, kind, tried),
        "says its version": partial(_version, kind),
    }
    if not tried:
        return checks
    first = tried[0]
    if issubclass(kind, Lowers):
        checks["a lowered graph answers nearly the same"] = partial(_lowered, kind, first)
        checks["refuses a graph that was not lowered"] = partial(_not_lowered, kind)
    if issubclass(kind, Spreads):
        checks["every layout answers alike, to as many callers"] = partial(_layouts, kind, first)
    return checks | {
        "every setting answers as numpy": partial(_answers, kind, tried),
        "a batch of one equals a batch of many": partial(_single, kind, tried),
        "the same numbers every time": partial(_repeatable, kind, first),
        "missing values stay in their row": partial(_missing, kind, first),
        "long and empty batches": partial(_lengths, kind, first),
        "leaves the caller's arrays alone": partial(_untouched, kind, first),
        "threads get their own answers": partial(_threads, kind, first),
        "refuses an unknown setting": partial(_unknown_setting, kind, first),
        "refuses tensors that do not fit": partial(_wrong_tensors, kind, first),
        "refuses what is no graph": partial(_no_graph, kind, first),
        "refuses an unknown operator in one sentence": partial(_unknown_operator, kind, first),
        "refuses data outside the graph": partial(_outside, kind, first),
    }


def _offers(kind: type[Engine], tried: Sequence[JsonObject]) -> None:
    require(isinstance(kind.name, str) and bool(kind.name), "the engine has no name")
    engines = [kind(small_graph(), settings) for settings in tried]
    for engine in engines:
        engine.close()


def _version(kind: type[Engine]) -> None:
    require(bool(kind.version().strip()), "version() is empty")


def _answers(kind: type[Engine], tried: Sequence[JsonObject]) -> None:
    batch = small_batch(_ROWS)
    wanted = small_reference(batch)
    for settings in tried:
        tolerance = _tolerance(settings)
        found = _open(kind, settings).run(batch)
        require(found.keys() == wanted.keys(), f"{settings}: the outputs are {sorted(found)}")
        require(found["score"].dtype == np.float32, f"{settings}: score is {found['score'].dtype}")
        require(found["alarm"].dtype == np.bool_, f"{settings}: alarm is {found['alarm'].dtype}")
        for name in ("score", "expected"):
            worst = difference(wanted[name], found[name])
            require(worst <= tolerance, f"{settings}: {name} is off by {worst:.2g}")
        clear = np.abs(wanted["score"] - 1) > tolerance
        same = np.array_equal(found["alarm"][clear], wanted["alarm"][clear])
        require(same, f"{settings}: an alarm differs away from the threshold")


def _single(kind: type[Engine], tried: Sequence[JsonObject]) -> None:
    batch = small_batch(_ROWS)
    for settings in tried:
        engine = _open(kind, settings)
        together = engine.run(batch)
        for i in range(0, _ROWS, 32):
            alone = engine.run({name: tensor[i : i + 1] for name, tensor in batch.items()})
            for name, value in alone.items():
                worst = difference(together[name][i : i + 1], value)
                require(worst <= 1e-5, f"{settings}: row {i} of {name} is off by {worst:.2g}")


def _repeatable(kind: type[Engine], settings: JsonObject) -> None:
    batch = small_batch(_ROWS)
    first, again = _open(kind, settings).run(batch), _open(kind, settings).run(batch)
    require(_same(first, again), "loaded twice, the graph gives different numbers")


def _lowered(kind: type[Lowers], settings: JsonObject) -> None:
    made: Any = kind
    graph, batch = dense_graph(), dense_batch(_FEW_ROWS)
    wanted = made(graph, settings).run(batch)["score"]
    for name, given in kind.lowered().items():
        lowered = resolve("lowering", name).lower(graph, [dense_batch(_FEW_ROWS, seed=2)])
        require(lowered is not None, f"{name} leaves a graph of heavy convolutions as it is")
        found = made(lowered, given).run(batch)["score"]
        worst = difference(wanted, found)
        require(0 < worst <= _tolerance(given), f"{given}: score is off by {worst:.2g}")


def _not_lowered(kind: type[Lowers]) -> None:
    made: Any = kind
    for given in kind.lowered().values():
        when = f"for a graph that was not lowered, with {given}"
        require_problem(partial(made, small_graph(), given), ("G601",), when)


def _layouts(kind: type[Spreads], settings: JsonObject) -> None:
    made: Any = kind
    batch = small_batch(_ROWS)
    wanted = made(small_graph(), settings).run(batch)
    layouts = kind.layouts(settings, _CORES)
    require(bool(layouts), "no layout is offered")
    for layout in layouts:
        same = layout.settings.get("precision") == settings.get("precision")
        require(same, f"{layout.settings} is another precision than {settings}")
        engine: Engine = made(small_graph(), layout.settings)
        with ThreadPoolExecutor(layout.runners) as callers:
            for found in callers.map(engine.run, [batch] * layout.runners * _FEW_ROWS):
                worst = max(difference(wanted[name], found[name]) for name in wanted)
                require(worst <= _SAME, f"{layout.settings}: the answers are off by {worst:.2g}")
        engine.close()


def _missing(kind: type[Engine], settings: JsonObject) -> None:
    engine = _open(kind, settings)
    batch = small_batch(_ROWS)
    clean = engine.run(batch)
    broken = {**batch, "window": batch["window"].copy()}
    broken["window"][7] = np.nan
    found = engine.run(broken)
    require(bool(np.isfinite(found["score"]).all()), "a missing value makes a score NaN")
    others = np.arange(_ROWS) != 7
    same = np.array_equal(clean["score"][others], found["score"][others])
    require(same, "a missing value in one row changes another row")


def _lengths(kind: type[Engine], settings: JsonObject) -> None:
    engine = _open(kind, settings)
    long = engine.run(small_batch(_LONG_ROWS))
    require(len(long["score"]) == _LONG_ROWS, f"{_LONG_ROWS} rows gave {len(long['score'])}")
    worst = difference(small_reference(small_batch(_LONG_ROWS))["score"], long["score"])
    require(worst <= _tolerance(settings), f"a long batch is off by {worst:.2g}")
    require(len(engine.run(small_batch(0))["score"]) == 0, "an empty batch gave rows")


def _untouched(kind: type[Engine], settings: JsonObject) -> None:
    engine = _open(kind, settings)
    batch = small_batch(1)
    for tensor in batch.values():
        tensor.setflags(write=False)
    before = {name: tensor.copy() for name, tensor in batch.items()}
    first = engine.run(batch)
    kept = {name: tensor.copy() for name, tensor in first.items()}
    engine.run(small_batch(1, seed=2))
    require(_same(before, batch), "run() changed its input")
    require(_same(kept, first), "a later call changed an answer already given")


def _threads(kind: type[Engine], settings: JsonObject) -> None:
    engine = _open(kind, settings)
    batches = [small_batch(1, seed=i) for i in range(_THREADS)]
    wanted = [{n: v.copy() for n, v in engine.run(batch).items()} for batch in batches]
    wrong: list[int] = []

    def ask(i: int) -> None:
        for _ in range(_CALLS):
            if not _same(engine.run(batches[i]), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    require(not wrong, f"{len(wrong)} answers in threads were those of another row")


def _unknown_setting(kind: type[Engine], settings: JsonObject) -> None:
    wrong = {**settings, "threds": 1}
    require_problem(lambda: kind(small_graph(), wrong), ("G102",), "for an unknown setting")


def _wrong_tensors(kind: type[Engine], settings: JsonObject) -> None:
    engine = _open(kind, settings)
    good = small_batch(5)
    wrong: dict[str, dict[str, Any]] = {
        "for a missing tensor": {"window": good["window"]},
        "for an unknown tensor": {**good, "extra": good["entity"]},
        "for a tensor of the wrong shape": {**good, "window": good["window"][:, :, :2]},
        "for tensors of different lengths": {**good, "entity": good["entity"][:3]},
        "for text where numbers belong": {**good, "window": good["window"].astype("U4")},
    }
    for when, tensors in wrong.items():
        require_problem(partial(engine.run, tensors), ("G602",), when)


def _no_graph(kind: type[Engine], settings: JsonObject) -> None:
    for data in (b"", b"not a graph", small_graph()[:-40]):
        when = f"for {len(data)} bytes that are no graph"
        require_problem(partial(kind, data, settings), ("G601", "G608"), when)


def _unknown_operator(kind: type[Engine], settings: JsonObject) -> None:
    data, when = graph_with_unknown_operator(), "for an operator it does not have"
    problem = require_problem(partial(kind, data, settings), ("G601",), when)
    for name, text, most in (("what", problem.what, 100), ("why", problem.why, 200)):
        require(len(text) <= most, f"{when}: `{name}` has {len(text)} characters, {most} at most")
        clean = "\n" not in text and "://" not in text
        require(clean, f"{when}: `{name}` has lines or addresses of the runtime: {text!r}")


def _outside(kind: type[Engine], settings: JsonObject) -> None:
    for location in ("weights.bin", "../weights.bin", "/etc/hostname"):
        data = graph_with_outside_data(location)
        require_problem(partial(kind, data, settings), ("G608",), f"for weights in {location}")


def _open(kind: type[Engine], settings: JsonObject) -> Engine:
    return kind(small_graph(), settings)


def _tolerance(settings: JsonObject) -> float:
    return _TOLERANCE.get(str(settings.get("precision")), _TOLERANCE["float32"])


def _same(left: dict[str, Array], right: dict[str, Array]) -> bool:
    return all(np.array_equal(left[n], right[n], equal_nan=left[n].dtype.kind == "f") for n in left)
