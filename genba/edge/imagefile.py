"""Opening an image file: refused by its header where need be, and quietly."""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from PIL import Image, UnidentifiedImageError

from genba.core.problem import Problem

#: Formats that packages are given; what a dataset holds is one of them.
SERVED: Final = ("JPEG", "PNG")
#: Formats that are read from files; all but those of SERVED are stored as PNG.
FILES: Final = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MAX_PIXELS: Final = 50_000_000
MAX_BYTES: Final = 64 << 20
MIN_SIDE: Final = 8  # pixels

_OTHER_FORMATS: Final = (
    (0, b"GIF8", "GIF"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\x00\x00\x01\x00", "icon"),
    (0, b"<svg", "SVG"),
    (0, b"BM", "BMP"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (8, b"WEBP", "WebP"),
)
#: What decoders raise on bytes that are no whole image.
DAMAGED: Final = (
    OSError,
    ValueError,
    SyntaxError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)


@contextmanager
def opened(data: bytes, formats: Sequence[str]) -> Iterator[Image.Image]:
    """Open a file, refuse it by its header where need be, and explain what fails in the block."""
    if len(data) > MAX_BYTES:
        raise _too_large(f"The file has {len(data) / 1e6:,.0f} MB; {MAX_BYTES / 1e6:.0f} is most.")
    with _quiet:
        try:
            with Image.open(io.BytesIO(data), formats=tuple(formats)) as image:
                _check_size(*image.size)
                yield image
        except UnidentifiedImageError as error:
            raise _unknown(data, formats) from error
        except Image.DecompressionBombError as error:
            raise _too_large(f"{error}.") from error
        except (*DAMAGED, MemoryError) as error:
            raise _damaged(error) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width:,} x {height:,} pixels; {MAX_PIXELS:,} pixels are most.")
    if min(width, height) < MIN_SIDE:
        raise Problem(
            "G234",
            f"The image is too small: {width} x {height} pixels.",
            why=f"At least {MIN_SIDE} pixels in each direction are needed to see anything.",
            tries=["send the image in its full size", "genba explain G234"],
        )


def _unknown(data: bytes, formats: Sequence[str]) -> Problem:
    for at, magic, name in _OTHER_FORMATS:
        if data[at : at + len(magic)] == magic and name.upper() not in formats:
            return refused(f"the format {name}", f"Accepted: {', '.join(formats)}.")
    return Problem(
        "G230",
        "This is no image." if data else "The image file is empty.",
        why=f"Its first bytes are {data[:8]!r}; known formats: {', '.join(formats)}."
        if data
        else "It has no bytes at all.",
        tries=["ls -l FILE", "copy or export the file again"],
    )


def _damaged(error: BaseException) -> Problem:
    return Problem(
        "G231",
        "The image is damaged or cut off.",
        why=str(error)[:200] or type(error).__name__,
        tries=["copy or export the file again", "genba explain G231"],
    )


def refused(what: str, why: str) -> Problem:
    """Return the Problem of an image that is whole but of a kind that is not read."""
    return Problem(
        "G232",
        f"Images with {what} are not read here."
        if "pixels" in what
        else f"Images in {what} are not read here.",
        why=why,
        tries=["save the image as PNG with 8 bits per channel", "genba explain G232"],
    )


def _too_large(why: str) -> Problem:
    return Problem(
        "G233",
        "The image is too large and was not decoded.",
        why=why,
        tries=["scale the image down", "cut it into tiles", "genba explain G233"],
    )


class _Quiet:
    """Ignores Pillow's warnings while any thread decodes.

    `warnings.catch_warnings` changes the whole process, so threads must not each enter it: the
    first one in opens it and the last one out closes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._caught is not None:
                self._caught.__exit__(None, None, None)
                self._caught = None


_quiet: Final = _Quiet()
