"""Opening a release on a device: what is refused, what is remembered, and what a clock may say."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.core.values import PackageFile
from genba.edge import release as module
from genba.edge.memory import Mark, Memory, Passed
from genba.edge.oms import SIGNATURE_FILE, verify
from genba.edge.release import STATEMENT_FILE, Release, encode_statement, open_release
from genba.edge.trust import Trust, add_key, revoke_key
from genba.stages.edge_export import Exported
from genba.store.home import Store
from genba.store.oms import sign_folder
from genba.testing.graphs import small_batch
from genba.testing.serving import place
from tests.unit.edge_releases import add_package, copied, golden, pump_home, released, trust_of

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return pump_home(tmp_path_factory.mktemp("factory") / "home")


@pytest.fixture(scope="module")
def first(factory: Store, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return released(factory, tmp_path_factory.mktemp("release") / "pump-1", days=10)


@pytest.fixture(scope="module")
def second(factory: Store, first: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return released(factory, tmp_path_factory.mktemp("release") / "pump-2")


def opened(exported: Exported, memory: Memory, folder: Path | None = None, **how: Any) -> Release:
    now_ms = how.pop("now_ms", exported.release.statement.made_ms)
    trust = how.pop("trust", trust_of(exported))
    return open_release(folder or exported.release.folder, trust, memory, now_ms, **how)


def resigned(exported: Exported, to: Path, **changes: Any) -> Path:
    """A copy with another statement, signed with the right key."""
    folder = copied(exported.release.folder, to)
    stated = dataclasses.replace(exported.release.statement, **changes)
    (folder / STATEMENT_FILE).write_bytes(encode_statement(stated))
    sign_folder(folder, exported.key)
    return folder


def code(work: Callable[[], object]) -> str:
    with pytest.raises(Problem) as caught:
        work()
    assert caught.value.tries
    return caught.value.code


def test_it_opens_and_answers(first: Exported, tmp_path: Path) -> None:
    memory = Memory.at(tmp_path)
    release = opened(first, memory)
    assert release.statement.release == 1
    assert release.statement.standing == "measured"
    assert release.interface.package == release.package.id
    assert release.notes == ()
    assert not (tmp_path / "memory.json").exists()  # opening writes nothing
    ready = release.predictor()
    assert "alarm" in ready.predict(small_batch(3))
    ready.engine.close()
    known = Memory.at(tmp_path).of("pump")
    assert known is not None
    assert known.newest == release.mark
    assert release.passed_here() is not None


def test_an_older_one_is_refused_once_a_newer_was_used(
    first: Exported, second: Exported, tmp_path: Path
) -> None:
    memory = Memory.at(tmp_path)
    opened(first, memory).predictor().engine.close()
    newer = opened(second, memory)
    newer.tested().engine.close()
    opened(first, memory)  # testing a newer one takes nothing away
    newer.predictor().engine.close()
    assert code(lambda: opened(first, memory)) == "G674"
    assert code(lambda: opened(first, Memory.at(tmp_path))) == "G674"  # after a restart
    opened(second, memory)
    root = first.release.signed.root
    assert opened(first, memory, pinned=root).statement.release == 1
    assert code(lambda: opened(first, memory, pinned="0" * 64)) == "G674"


def test_a_release_that_was_overtaken_while_it_was_tested(
    first: Exported, second: Exported, tmp_path: Path
) -> None:
    memory = Memory.at(tmp_path)
    slow = opened(first, memory)
    opened(second, memory).predictor().engine.close()
    assert code(slow.predictor) == "G674"


def test_another_release_of_the_same_number_is_refused(first: Exported, tmp_path: Path) -> None:
    memory = Memory.at(tmp_path / "state")
    opened(first, memory).predictor().engine.close()
    twin = resigned(first, tmp_path / "twin", target="elsewhere")
    assert code(lambda: opened(first, memory, twin)) == "G674"


def test_the_line_that_is_wanted(first: Exported) -> None:
    assert opened(first, Memory(None), line="pump").statement.line == "pump"
    assert code(lambda: opened(first, Memory(None), line="fan")) == "G676"


def test_keys(first: Exported, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert code(lambda: opened(first, Memory(None), trust=Trust.at(state))) == "G672"
    add_key(state, first.key.public_pem)
    assert opened(first, Memory(None), trust=Trust.at(state))
    revoke_key(state, first.key.fingerprint[:16])
    assert code(lambda: opened(first, Memory(None), trust=Trust.at(state))) == "G673"


@pytest.mark.parametrize(
    ("now_ms", "floor_ms", "refused"),
    [
        (0, 0, False),  # a clock without a battery: the release itself says it is later
        (0, 11 * DAY_MS, True),  # but an old one does not come back: a later one was used
        (9 * DAY_MS, 0, False),
        (11 * DAY_MS, 0, True),
        (20_000 * DAY_MS, 0, True),  # a clock of the year 2080
        (10**15 * DAY_MS, 0, True),  # and one that no calendar knows
    ],
)
def test_clocks(first: Exported, now_ms: int, floor_ms: int, refused: bool) -> None:
    made = first.release.statement.made_ms
    now = made + now_ms if now_ms else 0
    memory = Memory(None)
    if floor_ms:
        memory.accept("fan", Mark(release=1, root="ab", made_ms=made + floor_ms))
    if refused:
        assert code(lambda: opened(first, memory, now_ms=now)) == "G675"
        return
    release = opened(first, memory, now_ms=now)
    assert release.clock_ms >= made
    assert any("behind" in note for note in release.notes) == (now == 0)


def test_without_a_date_nothing_expires(second: Exported) -> None:
    assert opened(second, Memory(None), now_ms=10**15).statement.expires_ms is None


def test_too_slow_here(first: Exported, tmp_path: Path) -> None:
    folder = resigned(first, tmp_path / "fast", deadline_ms=1e-9)
    memory = Memory.at(tmp_path / "state")
    release = opened(first, memory, folder)
    assert code(release.predictor) == "G677"
    assert memory.of("pump") is None  # what failed is not remembered as used


def test_another_answer_here(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    wrong = store.blobs.put(golden(shift=3.0))
    sample = PackageFile(digest=wrong, size=len(store.blobs.read(wrong)))
    body = dict(store.ledger.get("package", add_package(store, seed=5)) or {})
    kept = {n: PackageFile(**f) for n, f in body["files"].items()}
    files = {**kept, "sample.safetensors": sample}
    place(store, "pump", "deploy", add_package(store, seed=5, files=files))
    assert code(lambda: released(store, tmp_path / "out")) == "G609"
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_the_speed_is_measured_once_for_a_machine(
    first: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measured(_: object) -> tuple[float, float]:
        asked.append(1)
        return 0.1, 0.2

    monkeypatch.setattr(module, "latency_ms", measured)
    memory = Memory.at(tmp_path)
    for _ in range(2):
        opened(first, memory).tested().engine.close()
    assert len(asked) == 1
    opened(first, memory).tested(again=True).engine.close()
    assert len(asked) == 2
    monkeypatch.setattr(module, "machine", lambda: "another processor")
    opened(first, memory).tested().engine.close()
    assert len(asked) == 3


def test_unverified_says_so(factory: Store, tmp_path: Path) -> None:
    exported = released(factory, tmp_path / "pi", target="raspberry-pi-5")
    assert exported.release.statement.standing == "unverified"
    assert exported.release.statement.measures == {}
    assert "not measured" in exported.release.notes[0]


def test_a_statement_of_another_version_or_no_statement(first: Exported, tmp_path: Path) -> None:
    def broken(name: str, content: bytes) -> Path:
        folder = copied(first.release.folder, tmp_path / name)
        (folder / STATEMENT_FILE).write_bytes(content)
        sign_folder(folder, first.key)
        return folder

    newer = resigned(first, tmp_path / "newer", format=2)
    wrong = json.loads((first.release.folder / STATEMENT_FILE).read_bytes()) | {"release": "one"}
    cases = {
        newer: "G603",
        broken("no-json", b"{"): "G670",
        broken("list", b"[]"): "G670",
        broken("types", json.dumps(wrong).encode()): "G670",
        resigned(first, tmp_path / "package", package="0" * 64): "G604",
        resigned(first, tmp_path / "line", line="fan"): "G670",
    }
    for folder, expected in cases.items():
        assert code(lambda f=folder: opened(first, Memory(None), f)) == expected  # type: ignore[misc]


def test_signed_but_mixed_up(first: Exported, second: Exported, tmp_path: Path) -> None:
    folder = copied(first.release.folder, tmp_path / "mixed")
    (folder / "interface.json").write_bytes(
        (folder / "interface.json").read_bytes().replace(b'"line": "pump"', b'"line": "fan"')
    )
    sign_folder(folder, first.key)
    assert code(lambda: opened(first, Memory(None), folder)) == "G670"
    (folder / "package" / "model.onnx").unlink()
    sign_folder(folder, first.key)
    assert code(lambda: opened(first, Memory(None), folder)) == "G670"
    (folder / STATEMENT_FILE).unlink()
    sign_folder(folder, first.key)
    assert code(lambda: opened(first, Memory(None), folder)) == "G670"


def test_a_safety_manifest_is_read(first: Exported, tmp_path: Path) -> None:
    folder = copied(first.release.folder, tmp_path / "safe")
    (folder / "safety.json").write_bytes(b'{"plan": {}}')
    sign_folder(folder, first.key)
    assert opened(first, Memory(None), folder).safety == {"plan": {}}
    (folder / "safety.json").write_bytes(b"[]")
    sign_folder(folder, first.key)
    assert code(lambda: opened(first, Memory(None), folder)) == "G670"


def test_files_exchanged_after_they_were_verified(
    first: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is compared once more after it was read."""
    folder = copied(first.release.folder, tmp_path / "race")
    real = verify

    def verify_then(name: str) -> Callable[..., Any]:
        def changed(*args: Any) -> Any:
            found = real(*args)
            path = folder / name
            path.write_bytes(path.read_bytes() + b" ")
            return found

        return changed

    for name in ("edge.json", "interface.json", "package/manifest.json", "package/model.onnx"):
        monkeypatch.setattr(module, "verify", verify_then(name))
        assert code(lambda: opened(first, Memory(None), folder)) in ("G670", "G604")
        copied(first.release.folder, folder)
    monkeypatch.setattr(module, "verify", real)
    (folder / SIGNATURE_FILE).chmod(0o600)
    assert opened(first, Memory(None), folder)


def test_memory_of_a_line_keeps_two_passed_tests(tmp_path: Path) -> None:
    memory = Memory.at(tmp_path)
    passed = Passed(time_ms=1, difference=0.0, latency_ms_p50=1.0, latency_ms_p99=2.0, machine="m")
    marks = [Mark(release=n, root=f"{n:064x}", made_ms=n) for n in range(1, 5)]
    for mark in marks:
        memory.remember_pass("pump", mark, passed)
        memory.accept("pump", mark)
        memory.accept("pump", mark)
    known = memory.of("pump")
    assert known is not None
    assert known.newest == marks[-1]
    assert known.previous == marks[-2]
    assert set(known.passed) == {marks[-1].root, marks[-2].root}
    assert memory.floor_ms == 4


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"format": 2, "lines": {}}', b'{"format": 1, "lines": {"a": 1}}']
)
def test_damaged_memory_is_no_memory_of_nothing(
    first: Exported, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "memory.json").write_bytes(content)
    assert code(lambda: opened(first, Memory.at(tmp_path))) == "G678"
    with pytest.raises(Problem, match="G678"):
        Memory.at(tmp_path).accept("pump", Mark(release=1, root="a", made_ms=1))
    assert (tmp_path / "memory.json").read_bytes() == content
