"""A server with a line of sensors and a line of images, and requests of the official clients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from genba.edge.images import encode_png
from genba.store.home import Store
from genba.testing.graphs import small_batch
from genba.testing.serving import (
    ENTITY_NAMES,
    RunningServer,
    image_package,
    place,
    running_server,
    small_package,
)

FEW = small_batch(3)
OUTPUTS = ("score", "alarm", "expected")


@contextmanager
def factory(folder: Path, *more: str, **settings: Any) -> Iterator[tuple[RunningServer, Store]]:
    """Serve `pump`, `spare` and `shop`, over HTTP and gRPC."""
    store = Store.open(folder / "genba")
    for line, package in (
        ("pump", small_package(store, "pump")),
        ("spare", small_package(store, "spare", seed=1)),
        ("shop", image_package(store, "shop")),
    ):
        place(store, line, "deploy", package)
    with running_server(folder / "genba", "--grpc-port", "0", *more, **settings) as server:
        yield server, store


def photographs(count: int = 2, side: int = 40) -> list[bytes]:
    """Return generated PNG files."""
    random = np.random.default_rng(1)
    return [
        encode_png(random.integers(0, 256, (side, side, 3)).astype(np.uint8)) for _ in range(count)
    ]


def as_array(files: Sequence[bytes]) -> Any:
    """Return files as the clients take them."""
    made = np.empty(len(files), dtype=object)
    made[:] = files
    return made


def inputs(client: Any, **more: Any) -> list[Any]:
    """Return the inputs of three rows, by index of the machine.

    Args:
        client: Module of the client: `tritonclient.http` or `.grpc`.
        more: For `set_data_from_numpy`, such as `binary_data`.
    """
    made = [
        client.InferInput("window", list(FEW["window"].shape), "FP32"),
        client.InferInput("entity", [3], "INT64"),
    ]
    made[0].set_data_from_numpy(FEW["window"], **more)
    made[1].set_data_from_numpy(FEW["entity"], **more)
    return made


def names(client: Any, **more: Any) -> list[Any]:
    """Return the inputs of two rows, by name of the machine."""
    made = [
        client.InferInput("window", [2, *FEW["window"].shape[1:]], "FP32"),
        client.InferInput("entity", [2], "BYTES"),
    ]
    made[0].set_data_from_numpy(np.nan_to_num(FEW["window"][:2]), **more)
    made[1].set_data_from_numpy(as_array([n.encode() for n in ENTITY_NAMES]), **more)
    return made


def image_inputs(client: Any, files: Sequence[bytes], **more: Any) -> list[Any]:
    """Return images as files."""
    made = client.InferInput("image", [len(files)], "BYTES")
    made.set_data_from_numpy(as_array(files), **more)
    return [made]
