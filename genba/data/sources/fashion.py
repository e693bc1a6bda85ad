"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 70,000 photographs of ten kinds of clothing."""

import gzip
import struct
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from genba.core.protocols import Array
from genba.edge.images import encode_png

CLASSES: Final = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_FOLDER: Final = "usr/share/datasets/fashion-mnist"
#: Split -> (images, labels), as the files are named in the package.
PARTS: Final = {
    "train": (f"{_FOLDER}/train-images-idx3-ubyte.gz", f"{_FOLDER}/train-labels-idx1-ubyte.gz"),
    "test": (f"{_FOLDER}/t10k-images-idx3-ubyte.gz", f"{_FOLDER}/t10k-labels-idx1-ubyte.gz"),
}
_ROWS: Final = 2_000  # of a batch


def batches(files: Mapping[str, bytes]) -> Iterator[pa.RecordBatch]:
    """Yield the images as PNG with their class and the split they were published in.

    Args:
        files: Content of the four files by their path in the package.
    """
    for split, (images, labels) in PARTS.items():
        pixels, classes = idx(files[images]), idx(files[labels])
        for start in range(0, len(pixels), _ROWS):
            part = range(start, min(start + _ROWS, len(pixels)))
            yield pa.record_batch(
                {
                    "image": pa.array([encode_png(pixels[i]) for i in part], pa.binary()),
                    "name": pa.array([f"{split}/{i:05d}.png" for i in part]),
                    "label": pa.array([CLASSES[classes[i]] for i in part]),
                    "split": pa.array([split] * len(part)),
                }
            )


def idx(data: bytes) -> Array:
    """Read an array of bytes in the IDX format, packed with gzip.

    Raises:
        ValueError: When it is none.

    Example:
        >>> idx(gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + bytes([7, 9]))).tolist()
        [7, 9]
    """
    raw = gzip.decompress(data)
    zero, kind, dimensions = struct.unpack_from(">HBB", raw)
    if zero or kind != 8:  # unsigned bytes, as the format numbers them
        raise ValueError("It is no IDX file of bytes.")
    shape = struct.unpack_from(f">{dimensions}I", raw, 4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
