"""Which code makes a result: known without git, from every way git keeps it, and in the record."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import genba
from genba.core.line import Data, Line
from genba.runs import software as softwares
from genba.runs.keys import code_digest
from genba.runs.run import execute
from genba.runs.software import revision, software
from genba.store.home import Store

ONE, OTHER = "1" * 40, "a" * 64
MAIN = "refs/heads/main"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="asks git itself")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "commit"),
    [
        ({}, None),
        ({".git/HEAD": f"ref: {MAIN}\n", f".git/{MAIN}": f"{ONE}\n"}, ONE),
        ({".git/HEAD": f"{OTHER}\n"}, OTHER),  # detached, in a repository with sha256
        (
            {
                ".git/HEAD": f"ref: {MAIN}\n",
                ".git/packed-refs": f"# pack-refs with: peeled\n{OTHER} {MAIN}2\n{ONE} {MAIN}\n",
            },
            ONE,
        ),
        ({".git/HEAD": f"ref: {MAIN}\n"}, None),  # nothing committed yet
        ({".git/HEAD": "ref: refs/heads/.invalid\n"}, None),  # a format that is no text
        ({".git/HEAD": "not a commit\n"}, None),
        (
            {
                ".git": "gitdir: elsewhere/worktrees/w\n",
                "elsewhere/worktrees/w/HEAD": "ref: refs/heads/side\n",
                "elsewhere/worktrees/w/commondir": "../..\n",
                "elsewhere/refs/heads/side": f"{ONE}\n",
            },
            ONE,
        ),
    ],
    ids=["none", "branch", "detached", "packed", "empty", "reftable", "damaged", "worktree"],
)
def test_the_commit_is_read_from_the_files(
    tmp_path: Path, files: dict[str, str], commit: str | None
) -> None:
    assert revision(tree(tmp_path, files)) == commit


def test_a_file_that_is_no_text_is_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_bytes(b"\xff\xfe\x00")
    assert revision(tmp_path) is None


def test_a_repository_around_an_installed_copy_is_not_its_own(tmp_path: Path) -> None:
    site = tree(tmp_path, {".git/HEAD": ONE}) / "lib" / "site-packages"
    site.mkdir(parents=True)
    assert revision(tmp_path) == ONE
    assert revision(site) is None


@needs_git
def test_git_agrees(tmp_path: Path) -> None:
    def git(*words: str, at: Path = tmp_path) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0")
        command = ["git", "-C", str(at), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    main, side = tmp_path / "main", tmp_path / "side"
    git("init", "-q", str(main))
    git("commit", "-q", "--allow-empty", "-m", "first", at=main)
    git("worktree", "add", "-q", str(side), at=main)
    git("commit", "-q", "--allow-empty", "-m", "second", at=side)
    wanted = [git("rev-parse", "HEAD", at=at) for at in (main, side)]
    assert len(set(wanted)) == 2
    assert [revision(main), revision(side)] == wanted
    git("pack-refs", "--all", at=main)
    assert [revision(main), revision(side)] == wanted


def test_it_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = software()
    monkeypatch.setattr(softwares, "version", lambda _: pytest.fail("asked again"))
    assert software() is first
    assert first["genba"] == genba.__version__
    assert first["source"] == code_digest("genba")
    assert first["python"].endswith(platform.python_version())
    assert first["libraries"]["numpy"] == np.__version__


def test_a_library_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softwares, "_LIBRARIES", ("numpy", "no-such-library"))
    assert list(software.__wrapped__()["libraries"]) == ["numpy"]


def test_every_run_says_which_code_it_ran(home: Path) -> None:
    line = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))
    with Store.open(home) as store:
        run = execute((), line=line, store=store).run
        body: Any = store.ledger.get("run", run)
    assert body["code"] == software()
