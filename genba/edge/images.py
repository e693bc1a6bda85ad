"""From the bytes of an image file to pixels: the one way, for training, server and device.

The same bytes give the same pixels everywhere, so nothing that a model has learnt is undone by
another reader. Files are opened by their content, never by their name, and everything that could
hurt is refused from the header, before a pixel is decoded.

What becomes of unusual files: EXIF rotation is applied; transparency is laid on white; palettes,
one-bit images, CMYK and YCbCr become RGB; the first image of an animation or of several pages
counts; 16-bit grey is scaled by the bits it uses, found from its brightest pixel (10, 12, 14 or
16), so that a 12-bit camera is not read as nearly black; of 16-bit colour the high byte counts.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from genba.edge.imagefile import DAMAGED, FILES, SERVED, opened, refused

_ORIENTATION: Final = 0x0112  # EXIF tag
_BITS_PER_SAMPLE: Final = 258  # TIFF tag
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS: Final = 5  # orientations from here on swap width and height
_DEPTHS: Final = (8, 10, 12, 14, 16)  # of cameras whose values are stored in 16 bits
_GAP: Final = 2.0  # a first, coarse reduction leaves so many times the size that is wanted
_FINE_GAP: Final = 8.0  # for thumbnails, so that a JPEG and a PNG of one picture have the same
_MASK_SHARE: Final = 0.25  # of a pixel that a mask must cover after resizing
_MASK_VALUES: Final = 8
_MASK_EXTREME: Final = 0.98  # share of pixels that are nearly black or nearly white
_BLACK: Final = 16
_WHITE: Final = 239
_NOISE: Final = 127  # JPEG masks have traces of compression where they are black
Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """What the header of an image file says."""

    width: int  # pixels, after EXIF rotation
    height: int
    mode: str  # as Pillow calls it: L, RGB, CMYK, I;16, ...
    format: str  # JPEG, PNG, ...
    bits: int  # per channel
    rotated: bool  # EXIF says that it must be turned or mirrored
    animated: bool = False  # there is more than one image in it
    transparent: bool = False


def inspect(data: bytes, formats: Sequence[str] = FILES) -> ImageFacts:
    """Return what the header says, without decoding a pixel.

    Args:
        data: The whole file.
        formats: Those that are accepted.

    Raises:
        Problem: G230 when it is no image, G231 when its header is damaged, G232 when its format
            is not accepted, G233 when it is too large, G234 when it is too small.

    Example:
        >>> facts = inspect(encode_png(np.zeros((20, 30, 3), np.uint8)))
        >>> facts.width, facts.height, facts.mode, facts.format, facts.bits
        (30, 20, 'RGB', 'PNG', 8)
    """
    with opened(data, formats) as image:
        return _facts(image, data)


def decode(data: bytes, size: int, formats: Sequence[str] = SERVED) -> Pixels:
    """Return an image as RGB pixels of a square; the proportions are not kept.

    Shrinking averages (antialiased bilinear); large JPEG files are already shrunk while decoding.

    Args:
        data: The whole file.
        size: Width and height of the result in pixels.
        formats: Those that are accepted.

    Returns:
        uint8 [size, size, 3].

    Raises:
        Problem: as `inspect`, and G231 when the pixels are damaged or cut off.

    Example:
        >>> decode(encode_png(np.full((20, 30), 7, np.uint8)), 8).shape
        (8, 8, 3)
    """
    with opened(data, formats) as image:
        return np.array(_resized(image, (size, size)).convert("RGB"))


def thumbnail(data: bytes, width: int, height: int) -> Pixels:
    """Return a small grey picture of an image, uint8 [height, width]; decodes the whole file.

    Raises:
        Problem: as `decode`.
    """
    with opened(data, FILES) as image:
        return np.array(_resized(image, (width, height), _FINE_GAP).convert("L"))


def decode_mask(data: bytes, size: int) -> Mask:
    """Return a mask, resized as `decode` resizes the image it belongs to.

    A pixel is set where the mask covers a quarter of it, so that thin scratches survive; a mask
    that would vanish keeps every pixel it touches.

    Returns:
        bool [size, size].

    Raises:
        Problem: as `decode`.

    Example:
        >>> mask = np.zeros((32, 32), bool)
        >>> mask[:16] = True
        >>> decode_mask(encode_png(mask), 8).sum(axis=1).tolist()
        [8, 8, 8, 8, 0, 0, 0, 0]
    """
    grey = Image.fromarray(read_mask(data).astype(np.uint8) * np.uint8(255))
    cover = np.asarray(grey.convert("F").resize((size, size), Image.Resampling.BOX)) / 255
    found: Mask = cover >= _MASK_SHARE
    return found if found.any() else cover > 0


def read_mask(data: bytes) -> Mask:
    """Return a mask in its own size, bool [height, width]: true where any channel is not zero.

    Transparency does not count; of JPEG files, what is darker than half is a trace of compression.

    Raises:
        Problem: as `decode`.
    """
    with opened(data, FILES) as image:
        lossy = image.format in ("JPEG", "MPO")
        image.load()
        if image.mode == "1":
            pixels: npt.NDArray[Any] = np.asarray(image)
        elif image.mode in ("RGBA", "LA", "RGBa", "La", "PA"):
            pixels = np.asarray(image.convert("RGBA"))[..., :3]
        else:
            pixels = np.asarray(image)
        marked: Mask = np.asarray(pixels > (_NOISE if lossy else 0))
        flat = marked if marked.ndim == 2 else np.any(marked, axis=2)
        return np.array(_turned(Image.fromarray(flat), _orientation(image)))


def is_mask(data: bytes) -> bool | None:
    """Say whether a file marks something: true, false where it marks nothing, None for a picture.

    A mask has a few values only, or is nearly all black and white where it was saved as JPEG.

    Raises:
        Problem: as `decode`.
    """
    with opened(data, FILES) as image:
        grey = np.asarray(image if image.mode == "P" else image.convert("L"))
    few = np.count_nonzero(np.bincount(grey.ravel(), minlength=256)) <= _MASK_VALUES
    extreme = np.mean((grey < _BLACK) | (grey > _WHITE))
    return bool(read_mask(data).any()) if few or extreme > _MASK_EXTREME else None


def encode_png(pixels: npt.NDArray[Any]) -> bytes:
    """Return pixels as a PNG file, losslessly.

    Args:
        pixels: uint8 or bool [height, width] (true is white), uint8 [height, width, 3], or
            uint16 [height, width].
    """
    array = pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == np.bool_ else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
    return buffer.getvalue()


def as_served(data: bytes) -> bytes:
    """Return a file in a format that packages are given: itself, or as PNG in its own size.

    Grey of 16 bits keeps its bits; everything else is stored as `decode` would see it. What is
    returned as it is was not decoded.

    Raises:
        Problem: as `decode`.
    """
    with opened(data, FILES) as image:
        if image.format in (*SERVED, "MPO"):
            return data
        image.load()
        if image.mode.startswith("I"):
            grey = Image.fromarray(np.clip(np.asarray(image), 0, 65_535).astype(np.uint16))
            return encode_png(np.array(_turned(grey, _orientation(image))))
        plain = _on_white(_plain(image))
        return encode_png(np.array(_turned(plain, _orientation(image))))


def depth(data: bytes) -> int:
    """Return how many bits of an image's channels are used; what `decode` scales grey by.

    Raises:
        Problem: as `decode`.
    """
    with opened(data, FILES) as image:
        if not image.mode.startswith("I"):
            return 8
        return _depth(np.asarray(image))


def _facts(image: Image.Image, data: bytes) -> ImageFacts:
    turn = _orientation(image)
    width, height = image.size
    if turn >= _SIDEWAYS and image.format != "TIFF":  # Pillow has turned the size of a TIFF
        width, height = height, width
    return ImageFacts(
        width=width,
        height=height,
        mode=image.mode,
        format="JPEG" if image.format == "MPO" else str(image.format),
        bits=_bits(image, data),
        rotated=turn in _TURNS,
        animated=bool(getattr(image, "is_animated", False)),
        transparent=image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
        or "transparency" in image.info,
    )


def _bits(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG" and data[12:16] == b"IHDR":
        return data[24]
    tags: Any = getattr(image, "tag_v2", None)
    if tags is not None and _BITS_PER_SAMPLE in tags:
        return int(max(tags[_BITS_PER_SAMPLE]))
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _resized(image: Image.Image, size: tuple[int, int], gap: float = _GAP) -> Image.Image:
    """Return an image as L or RGB in this size, upright and opaque."""
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (int(gap * size[0]), int(gap * size[1])))
    image.load()  # turns a TIFF, which then says that it is upright
    turn = _orientation(image)
    within = size if turn < _SIDEWAYS else size[::-1]
    small = _plain(image).resize(within, Image.Resampling.BILINEAR, reducing_gap=gap)
    return _turned(_on_white(small), turn)


def _plain(image: Image.Image) -> Image.Image:
    """Return an image as L, RGB or RGBA, in its own size."""
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode == "F":
        raise refused("floating-point pixels", "What white is cannot be known.")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB"):
        return image
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise refused(f"{image.mode} pixels", str(error)) from error


def _eight_bits(pixels: npt.NDArray[Any]) -> Pixels:
    """Scale grey of up to 16 bits to 8 by the bits it uses."""
    used = _depth(pixels)
    within = np.clip(pixels, 0, (1 << used) - 1).astype(np.uint32)
    scaled: Pixels = (within * 255 // ((1 << used) - 1)).astype(np.uint8)
    return scaled


def _depth(pixels: npt.NDArray[Any]) -> int:
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high >= 1 << _DEPTHS[-1]:
        raise refused("pixels of 32 bits", f"They go from {low:,} to {high:,}.")
    return next(bits for bits in _DEPTHS if high < 1 << bits)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def _orientation(image: Image.Image) -> int:
    """Return how EXIF says that an image lies; 1, upright, where it says nothing or nonsense."""
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except DAMAGED:
        return 1
    return turn if isinstance(turn, int) and turn in _TURNS else 1


def _turned(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image
