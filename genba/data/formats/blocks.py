"""Cut a file of lines into blocks of whole records, so that memory does not grow with the file."""

from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from genba.core.problem import Problem

BLOCK_BYTES: Final = 8 << 20
HEAD_BYTES: Final = 256 << 10  # enough to see how a file is written
_LONGEST_RECORD: Final = 64 << 20
_QUOTE: Final = b'"'
_BOM_16: Final = (b"\xff\xfe", b"\xfe\xff")
BOM_8: Final = b"\xef\xbb\xbf"


class Block(NamedTuple):
    """Whole records of a file."""

    data: bytes
    offset: int  # of the first byte in the file
    line: int  # number of the first line
    lines: int  # how many there are

    @property
    def end(self) -> int:
        """Offset behind the block."""
        return self.offset + len(self.data)


def blocks(
    file: BinaryIO, name: str, *, start: int, line: int, quoted: bool, size: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Yield a file from byte `start` on, in blocks that end where a record ends.

    Args:
        file: The open file.
        name: What to call it in an error.
        start: Offset of the first byte to read.
        line: Number of the line that begins there.
        quoted: Whether a quoted field may hold a line feed.
        size: About how many bytes a block has.

    Raises:
        Problem: G206 for a quote that is never closed or a line that never ends.
    """
    _skip(file, start)
    rest = b""
    while piece := file.read(size):
        data = rest + piece
        end = _last_record_end(data, quoted=quoted)
        if end:
            block = Block(data[:end], start, line, data.count(b"\n", 0, end))
            yield block
            start, line = block.end, line + block.lines
        elif len(data) > _LONGEST_RECORD:
            raise _endless(name, line, "The record that begins here does not end.")
        rest = data[end:]
    if not rest.strip(b"\r\n"):
        return
    if quoted and rest.count(_QUOTE) % 2:
        raise _endless(name, line, "A quote is opened here and never closed.")
    yield Block(rest, start, line, rest.count(b"\n") + (0 if rest.endswith(b"\n") else 1))


def check_text(head: bytes, name: str) -> None:
    """Refuse what is not UTF-8 text with line feeds.

    Raises:
        Problem: G202 for an empty file, G203 for one that is not text.
    """
    if not head.removeprefix(BOM_8).strip():
        raise Problem(
            "G202",
            f"{name} is empty.",
            where=name,
            why="There is not even a header line.",
            tries=[f"ls -l {name}", f"rm {name}", "export the file again"],
        )
    if head.startswith(_BOM_16):
        raise not_text(name, 1, "It is written in UTF-16.", "UTF-16")
    if b"\0" in head:
        at = head[: head.index(b"\0")].count(b"\n") + 1
        raise not_text(name, at, "It holds bytes that no text has.", None)
    if b"\r" in head and b"\n" not in head:
        raise Problem(
            "G203",
            f"{name} has no line feeds.",
            where=name,
            why="Its lines end in a carriage return only, as very old programs wrote them.",
            tries=[f"tr '\\r' '\\n' < {name} > fixed.csv"],
        )


def check_encoding(data: bytes, name: str, line: int) -> None:
    """Refuse bytes that are not UTF-8, naming the line.

    Raises:
        Problem: G203 with the line and a command that converts the file.
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        at = line + data[: error.start].count(b"\n")
        why = f"The byte 0x{data[error.start]:02x} is not UTF-8."
        raise not_text(name, at, why, "WINDOWS-1252") from error


def not_text(name: str, line: int, why: str, encoding: str | None) -> Problem:
    """Return the Problem of a file that is not text as it should be."""
    convert = f"iconv -f {encoding} -t UTF-8 {name} > fixed.csv"
    return Problem(
        "G203",
        f"{name} line {line} is not text that can be read.",
        where=f"{name}:{line}",
        why=why,
        tries=[convert]
        if encoding
        else [f"file {name}", "export it as CSV, Parquet or JSON Lines"],
    )


def _skip(file: BinaryIO, count: int) -> None:
    if file.seekable():
        file.seek(count)


def _last_record_end(data: bytes, *, quoted: bool) -> int:
    """Return the offset behind the last line feed that is not inside quotes, 0 if there is none."""
    end = data.rfind(b"\n") + 1
    if not quoted or not end:
        return end
    inside = data.count(_QUOTE, 0, end) % 2
    while inside and end:
        before = data.rfind(b"\n", 0, end - 1) + 1
        inside ^= data.count(_QUOTE, before, end) % 2
        end = before
    return end


def _endless(name: str, line: int, why: str) -> Problem:
    return Problem(
        "G206",
        f"{name} line {line} cannot be read.",
        where=f"{name}:{line}",
        why=why,
        tries=[f"sed -n {line}p {name}", 'close the quote, or write "" for a quote inside a field'],
    )
