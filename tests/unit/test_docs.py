"""Every block of the README and the docs runs, or says why it does not.

A `console` block is a session: each line that begins with `$ ` is typed, in one folder per page,
from top to bottom. A `python` block is a doctest. A comment before a block changes that:

    <!-- run: network -->          needs the package registry; runs in `make test-all`
    <!-- run: slow -->             runs in `make test-all`
    <!-- run: no, REASON -->       does not run; the reason is for the reader
    <!-- run: exit 1 -->           runs, and exits with that code
"""

import doctest
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from genba.core.linefile import load_line, parse_line
from genba.ui.cli.app import COMMANDS, help_text

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- run: (?P<how>[^>]*?) -->\s*\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)(?P<path>[^)#\s]+)")
TYPED = {"genba", "cd", "cat", "head", "ls", "curl", "sleep"}


@dataclass(frozen=True)
class Block:
    kind: str
    body: str
    how: str
    line: int


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(m["kind"], m["body"], m["how"] or "", text[: m.start("body")].count("\n") + 1)
        for m in BLOCK.finditer(text)
    ]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def marks(path: Path) -> list[pytest.MarkDecorator]:
    hows = " ".join(b.how for b in blocks(path) if b.kind == "console")
    found = [pytest.mark.timeout(600)]
    if "network" in hows:
        found.append(pytest.mark.network)
    if "slow" in hows:
        found.append(pytest.mark.slow)
    return found


def sessions() -> Iterator[object]:
    """Pages with something to type, each twice if some of it needs a network or long."""
    for path in PAGES:
        run = [b for b in blocks(path) if b.kind == "console" and not b.how.startswith("no,")]
        quick = [b for b in run if not b.how.startswith(("network", "slow"))]
        is_error_page = path.parent.name == "errors"  # what to type there names files of the reader
        if quick and not is_error_page:
            yield pytest.param(path, quick, id=name_of(path))
        if run != quick and not is_error_page:
            yield pytest.param(path, run, id=f"{name_of(path)} whole", marks=marks(path))


class Session:
    """One reader at one terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.behind: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GENBA")},
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "COLUMNS": "100",
            "GENBA_URL": f"http://127.0.0.1:{self.port}",
        }

    def type(self, line: str) -> tuple[int, str]:
        command, _, target = line.partition(" > ")
        words = shlex.split(command.removesuffix(" &"), comments=True)
        words = [w.replace("8080", str(self.port)) for w in words]
        assert words[0] in TYPED, f"{words[0]} may not be typed in the docs"
        if words[0] == "cd":
            self.folder /= words[1]
            return 0, ""
        if words[:2] == ["genba", "up"]:
            words += ["--port", str(self.port)]
        if words[0] == "genba":
            words = [sys.executable, "-m", *words]
        if line.endswith(" &"):
            return self.start(words)
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, check=False
        )
        if target:
            (self.folder / target.strip()).write_bytes(done.stdout)
        return done.returncode, (done.stdout + done.stderr).decode()

    def start(self, words: list[str]) -> tuple[int, str]:
        """Start something that stays, and wait until it answers."""
        log = (self.folder / "server.log").open("wb")
        with log:
            self.behind.append(
                subprocess.Popen(
                    words, cwd=self.folder, env=self.environment, stdout=log, stderr=log
                )
            )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            said = (self.folder / "server.log").read_text()
            if "answers at" in said or self.behind[-1].poll() is not None:
                return self.behind[-1].poll() or 0, said
            time.sleep(0.1)
        return 1, "it never answered"

    def close(self) -> None:
        for process in self.behind:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.mark.parametrize(("path", "session"), list(sessions()))
def test_a_console_block_can_be_typed(path: Path, session: list[Block], tmp_path: Path) -> None:
    reader = Session(tmp_path)
    try:
        for block in session:
            wanted = int(block.how.removeprefix("exit ")) if block.how.startswith("exit ") else 0
            lines = [ln[2:] for ln in block.body.splitlines() if ln.startswith("$ ")]
            assert lines, f"{name_of(path)}:{block.line} has nothing to type"
            for line in lines:
                code, said = reader.type(line)
                place = f"{name_of(path)}:{block.line}  $ {line}"
                assert code == (wanted if line == lines[-1] else 0), f"{place}\n{said}"
    finally:
        reader.close()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_python_blocks_are_true(path: Path) -> None:
    for block in blocks(path):
        if block.kind != "python" or block.how.startswith("no,"):
            continue
        test = doctest.DocTestParser().get_doctest(
            block.body, {}, name_of(path), str(path), block.line
        )
        assert test.examples, f"{name_of(path)}:{block.line} is no doctest"
        said: list[str] = []
        result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
        assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_toml_and_json_blocks_are_valid(path: Path) -> None:
    for block in blocks(path):
        if block.kind == "toml" and not block.how.startswith("no,"):
            tomllib.loads(block.body)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    gone = [m["path"] for m in LINK.finditer(text) if not (path.parent / m["path"]).exists()]
    assert not gone


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_page_keeps_its_shape(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert text.endswith("\n")
    assert text.count("\n```") % 2 == 0, "a block is not closed"
    assert all(b.kind for b in blocks(path)), "a block says what it is"


def test_the_readme_names_every_command_and_no_other() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    typed = set(re.findall(r"genba ([a-z]+)", text))
    assert set(COMMANDS) <= typed, "every command appears once in the README"
    assert help_text().splitlines()[0].startswith("Genba: an open AI factory")


def test_the_line_file_of_the_readme_is_the_one_that_ships() -> None:
    (shown,) = (b.body for b in blocks(ROOT / "README.md") if b.kind == "toml")
    assert parse_line(shown) == load_line(ROOT / "lines" / "wind-farm.toml")


def test_pages_name_files_that_exist() -> None:
    """`genba/...`, `tests/...` and `docs/...` in backticks are paths of this tree."""
    gone = []
    for path in PAGES:
        for found in re.findall(
            r"`((?:genba|tests|docs|lines|benchmarks)/[\w./-]+)`", path.read_text()
        ):
            if not (ROOT / found).exists():
                gone.append(f"{name_of(path)}: {found}")
    assert not gone
