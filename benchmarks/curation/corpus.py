"""Real texts for the benchmark: documentation in Debian packages and talks, with copies among them.

Usage: python benchmarks/curation/corpus.py TEXTS.jsonl MEGABYTES
"""

import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from genba.core.line import Data
from genba.data.formats.texts import conversation
from genba.data.sources.package import PackageSource

PACKAGES = (
    *("rust-doc", "debian-handbook", "python3.11-doc", "git-doc", "postgresql-doc-15", "nut-doc"),
)
SILENT = ("script", "style", "head", "nav")
APART = ("p", "div", "li", "h1", "h2", "h3", "h4", "tr", "pre", "br", "dt", "dd", "table")
LONGEST = 40_000  # characters of a text; longer ones are cut
COPIES = 0.1  # of the texts come again: as they are, with 1 % of the words changed, or cut short
SPAM = 300


class Plain(HTMLParser):
    """Keeps what people read."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  # of the parser
        """Begin what is not read, or a line."""
        self.silent += tag in SILENT
        self.parts += ["\n"] * (tag in APART)

    def handle_endtag(self, tag: str) -> None:
        """End what is not read, or a line."""
        self.silent -= tag in SILENT and self.silent > 0
        self.parts += ["\n"] * (tag in APART)

    def handle_data(self, data: str) -> None:
        """Keep what is read."""
        self.parts += [data] * (not self.silent)


def plain(data: bytes) -> str:
    parser = Plain()
    parser.feed(data.decode("utf-8", "replace"))
    text = re.sub(r"[ \t]+", " ", "".join(parser.parts))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def documents(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield names and texts of everything readable below a folder."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        name = path.name.removesuffix(".gz")
        if not name.endswith((".html", ".htm", ".txt", ".rst", ".md")):
            continue
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = plain(data) if "htm" in name[-5:] else data.decode("utf-8", "replace")
        for at in range(0, len(text), LONGEST):
            if len(text) - at >= 200:
                yield f"{path.relative_to(folder)}#{at}", text[at : at + LONGEST]


def talks() -> Iterator[tuple[str, str]]:
    """Yield the longest part of each conversation of `package:chitchat`."""
    found: dict[str, str] = {}
    for batch, _ in PackageSource("chitchat", Data(source="package:chitchat")).batches():
        for row in batch.to_pylist():
            said = [m["content"] for m in conversation(row["messages"] or "[]")]
            found[row["group"] or row["name"]] = "\n".join([*said, row["answer"] or ""])
    yield from found.items()


def copied(texts: list[tuple[str, str]], chance: random.Random) -> Iterator[tuple[str, str]]:
    """Yield copies of some texts, and spam."""
    for n in range(int(len(texts) * COPIES)):
        name, text = chance.choice(texts)
        words = text.split(" ")
        if n % 3 == 1:
            for at in chance.sample(range(len(words)), max(1, len(words) // 100)):
                words[at] = "changed"
        elif n % 3 == 2:
            words = words[: int(len(words) * 0.95)]
        yield f"copy{n % 3}:{n}:{name}", " ".join(words)
    for n in range(SPAM):
        yield f"spam:{n}", f"buy now {chance.choice(['cheap', 'best'])} " * chance.randint(50, 500)


def main(target: Path, megabytes: float) -> None:
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        for name in PACKAGES:
            subprocess.run(["apt-get", "download", name], cwd=scratch, check=True)
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, f"{scratch}/files"], check=True)
        texts = [*documents(Path(scratch) / "files"), *talks()]
    texts += copied(list(texts), chance)
    chance.shuffle(texts)
    size = 0
    with target.open("w", encoding="utf-8") as file:
        for name, text in texts:
            size += len(text.encode())
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
            if size > megabytes * 1e6:
                break
    print(f"{size / 1e6:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
