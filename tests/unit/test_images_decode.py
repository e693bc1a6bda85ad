"""Image files as they come from the world: each kind has a defined outcome."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from genba.core.problem import Problem
from genba.edge.imagefile import FILES, MAX_BYTES
from genba.edge.images import (
    as_served,
    decode,
    decode_mask,
    depth,
    encode_png,
    inspect,
    is_mask,
    read_mask,
    thumbnail,
)

GREY = arrays(np.uint8, st.tuples(st.integers(8, 24), st.integers(8, 24)))


def picture(height: int = 40, width: int = 60) -> Image.Image:
    """Dark on top, noise below."""
    pixels = np.random.default_rng(0).integers(60, 256, (height, width, 3), dtype=np.uint8)
    pixels[: height // 2] = 0
    return Image.fromarray(pixels)


def saved(image: Image.Image, form: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nearly nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def code_of(function: Any, *arguments: Any) -> str:
    with pytest.raises(Problem) as caught:
        function(*arguments)
    assert caught.value.tries
    return caught.value.code


@given(GREY)
def test_png_is_lossless_and_a_square_keeps_its_pixels(pixels: np.ndarray[Any, Any]) -> None:
    data = encode_png(pixels)
    height, width = pixels.shape
    facts = inspect(data)
    assert (facts.width, facts.height, facts.mode, facts.format) == (width, height, "L", "PNG")
    if height == width:
        assert (decode(data, width) == pixels[..., None]).all()
    small = decode(data, 8)
    assert small.shape == (8, 8, 3)
    assert pixels.min() <= small.min() <= small.max() <= pixels.max()


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_a_problem(data: bytes) -> None:
    assert code_of(decode, data, 16) in {"G230", "G231", "G232", "G234"}


@pytest.mark.parametrize("form", FILES)
@given(cut=st.floats(0.05, 0.9), flips=st.lists(st.floats(0.1, 1), max_size=4))
def test_damaged_files_never_raise_anything_else(form: str, cut: float, flips: list[float]) -> None:
    data = bytearray(saved(picture(), form))
    for place in flips:
        data[int(place * (len(data) - 1))] ^= 0x55
    for damaged in (bytes(data), bytes(data[: int(cut * len(data))])):
        for function in (inspect, thumbnail_of, as_served, read_mask, is_mask):
            assert outcome(function, damaged) in {"", "G230", "G231", "G232", "G233", "G234"}


def outcome(function: Any, data: bytes) -> str:
    try:
        function(data)
    except Problem as problem:
        return problem.code
    return ""


def thumbnail_of(data: bytes) -> Any:
    return thumbnail(data, 16, 16)


@pytest.mark.parametrize("form", FILES)
def test_half_a_file_is_damaged(form: str) -> None:
    data = saved(picture(), form)
    assert code_of(decode, data[: len(data) // 2], 16, FILES) == "G231"


def test_what_is_refused_and_why() -> None:
    assert code_of(decode, b"", 16) == "G230"
    assert code_of(decode, b"<html>404</html>" * 9, 16) == "G230"
    assert code_of(decode, saved(picture().convert("P"), "GIF"), 16) == "G232"
    assert code_of(decode, saved(picture(), "TIFF"), 16) == "G232"  # a server takes JPEG and PNG
    assert code_of(decode, saved(picture(7, 400), "PNG"), 16) == "G234"
    assert code_of(inspect, b"\xff\xd8" + bytes(MAX_BYTES)) == "G233"
    floats = Image.fromarray(np.ones((20, 20), np.float32))
    assert code_of(decode, saved(floats, "TIFF"), 16, FILES) == "G232"
    wide = Image.fromarray(np.full((20, 20), 1 << 20, np.int32))
    assert code_of(decode, saved(wide, "TIFF"), 16, FILES) == "G232"
    below = Image.fromarray(np.full((20, 20), -1, np.int32))
    assert code_of(as_decoded, saved(below, "TIFF")) == "G232"


def as_decoded(data: bytes) -> Any:
    return decode(data, 16, FILES)


@pytest.mark.parametrize("size", [(7_000, 7_200), (12_000, 12_000), (60_000, 60_000), (1 << 30, 9)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert code_of(inspect, png_header(*size)) == "G233"
    assert code_of(decode, png_header(*size), 16) == "G233"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotation_is_applied_once(form: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(picture(), form, exif=exif)
    facts = inspect(data)
    assert (facts.width, facts.height) == ((40, 60) if turn >= 5 else (60, 40))
    assert facts.rotated == (turn > 1)
    dark = {
        1: "top",
        2: "top",
        3: "bottom",
        4: "bottom",
        5: "left",
        6: "right",
        7: "right",
        8: "left",
    }
    for seen in (decode(data, 40, FILES), decode(as_served(data), 40)):
        edges = {
            "top": seen[:8], "bottom": seen[-8:], "left": seen[:, :8], "right": seen[:, -8:],
        }  # fmt: skip
        assert min(edges, key=lambda name: float(edges[name].mean())) == dark[turn]


def test_nonsense_in_exif_means_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(picture(), "JPEG", exif=exif)
    assert not inspect(data.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x07")).rotated


@pytest.mark.parametrize(
    ("high", "bits"), [(200, 8), (900, 10), (4_095, 12), (16_000, 14), (65_535, 16)]
)
def test_sixteen_bits_are_scaled_by_those_in_use(high: int, bits: int) -> None:
    ramp = np.linspace(0, high, 32 * 32).reshape(32, 32).astype(np.uint16)
    for data in (encode_png(ramp), saved(Image.fromarray(ramp), "TIFF")):
        assert inspect(data).bits == 16
        assert depth(data) == bits
        seen = decode(as_served(data), 32)[..., 0]
        assert seen[0, 0] == 0
        assert seen[-1, -1] == high * 255 // ((1 << bits) - 1)
    assert depth(saved(picture(), "PNG")) == 8


def test_colours_become_rgb() -> None:
    plain = decode(saved(picture(), "JPEG", quality=95), 16).astype(int)
    inks = decode(saved(picture().convert("CMYK"), "JPEG", quality=95), 16).astype(int)
    assert abs(plain - inks).mean() < 8
    for mode in ("1", "L", "P", "LA", "RGBA"):
        data = saved(picture().convert(mode), "PNG")
        assert decode(data, 16).shape == (16, 16, 3)
    assert inspect(saved(picture().convert("1"), "PNG")).bits == 1
    hsv = saved(picture(), "TIFF", compression="tiff_lzw")
    assert decode(hsv, 16, FILES).shape == (16, 16, 3)


def test_transparency_is_laid_on_white() -> None:
    glass = picture().convert("RGBA")
    glass.putalpha(0)
    assert decode(saved(glass, "PNG"), 16).min() == 255
    key = saved(Image.new("L", (20, 20), 7), "PNG", transparency=7)
    assert inspect(key).transparent
    assert decode(key, 16).min() == 255
    assert decode(as_served(saved(glass, "WEBP", lossless=True)), 16).min() == 255


def test_of_several_images_the_first_counts() -> None:
    for form in ("PNG", "WEBP", "TIFF"):
        many = saved(picture(), form, save_all=True, append_images=[Image.new("RGB", (60, 40))])
        assert inspect(many).animated
        assert decode(many, 16, FILES)[8:].mean() > 60
    assert not inspect(saved(picture(), "PNG")).animated


def test_jpeg_and_png_are_stored_as_they_are() -> None:
    for form in ("JPEG", "PNG"):
        data = saved(picture(), form)
        assert as_served(data) is data
    for form in ("BMP", "TIFF"):
        assert (
            decode(as_served(saved(picture(), form)), 40) == decode(saved(picture(), "PNG"), 40)
        ).all()


def test_thumbnails_of_jpeg_and_png_agree() -> None:
    smooth = Image.fromarray(np.outer(np.arange(600) % 256, np.ones(900)).astype(np.uint8))
    apart = thumbnail_of(saved(smooth, "JPEG", quality=90)).astype(int) - thumbnail_of(
        saved(smooth, "PNG")
    )
    assert abs(apart).max() <= 4


def test_masks() -> None:
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[500:502] = True
    assert decode_mask(encode_png(mask), 224).sum() == 224  # a thin scratch survives
    mask[:] = False
    mask[3, 3] = True
    assert decode_mask(encode_png(mask), 64).sum() == 1
    assert not decode_mask(encode_png(np.zeros((20, 20), bool)), 8).any()
    colour = np.zeros((20, 20, 3), np.uint8)
    colour[:5, :, 2] = 1
    for data in (encode_png(colour), saved(Image.fromarray(colour).convert("RGBA"), "PNG")):
        assert read_mask(data).sum() == 100
    blurred = np.zeros((64, 64), np.uint8)
    blurred[:32] = 255
    noisy = saved(Image.fromarray(blurred), "JPEG", quality=60)
    assert read_mask(noisy).sum() == 32 * 64
    assert is_mask(noisy) is True
    assert is_mask(encode_png(np.zeros((20, 20), np.uint8))) is False
    assert is_mask(saved(picture(), "PNG")) is None
    assert read_mask(saved(Image.fromarray(blurred).convert("1"), "PNG")).sum() == 32 * 64


def test_no_warning_leaks_from_any_thread() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    broken = saved(picture(), "JPEG", exif=exif).replace(b"MM\0*", b"MM\1*")
    palette = saved(picture().convert("P"), "PNG", transparency=bytes([0, 9]))
    many = [broken, palette, png_header(12_000, 12_000)] * 20

    def look(data: bytes) -> None:
        try:
            decode(data, 16)
        except Problem:
            return

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(look, many))
        before = list(warnings.filters)
    assert not caught
    assert before[0][0] == "always"
