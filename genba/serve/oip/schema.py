"""What requests to one package look like: worked out once, when the package is loaded."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.core.tuning import defaults
from genba.core.values import Manifest, Signature, Tensor

#: Outputs that are answered but too large to keep.
NOT_CAPTURED: Final = frozenset({"map", "mask"})
#: Outputs that whoever sends one file with curl does not want to read.
_NOT_READ: Final = NOT_CAPTURED | {"embedding", "look"}
#: Inputs that a request may leave out.
_OPTIONAL: Final = frozenset({"entity", "time", "parameter", "given"})
_IMAGE_DIMENSIONS: Final = 4
#: Settings of a task that say how to fill the inputs and read the outputs.
_TOLD: Final = ("sensors", "outputs", "known", "lags", "context", "horizons", "step_ms", "size")


class Wanted:
    """Which outputs a client wants, and how.

    Attributes:
        templates: What answers to this wish look like; belongs to whoever writes them.
    """

    __slots__ = ("all_binary", "binary", "id", "names", "templates")

    def __init__(self, id: str, names: Sequence[str], binary: Sequence[bool]) -> None:
        self.id = id
        self.names = names
        self.binary = binary
        self.all_binary = all(binary)
        self.templates: dict[Any, Any] = {}


class Schema:
    """Inputs and outputs of a package by what they are for.

    Args:
        signature: Of the package.
        entities: Names that the package knows.
        classes: What the classes 0, 1, 2, ... mean.
    """

    def __init__(
        self, signature: Signature, entities: Sequence[str], classes: Sequence[str] = ()
    ) -> None:
        inputs, outputs = signature.inputs, signature.outputs
        self.inputs: dict[str, Tensor] = {t.name: t for t in inputs}
        self.outputs: dict[str, Tensor] = {t.name: t for t in outputs}
        self.entities = tuple(entities)
        self.classes = tuple(classes)
        self.output_names = tuple(self.outputs)
        self.kept_outputs = tuple(t.name for t in outputs if t.role not in NOT_CAPTURED)
        self.read_outputs = tuple(t.name for t in outputs if t.role not in _NOT_READ)
        self.entity = _first(inputs, "entity")
        self.time = _first(inputs, "time")
        self.image = _first(inputs, "image")
        self.given = _first(inputs, "given")
        self.size = _image_size(self.inputs.get(self.image or ""))
        self.features = tuple(t.name for t in inputs if t.role not in _OPTIONAL)
        self.parameters: Mapping[str, float] = defaults(signature)
        self.said = tuple(t.name for t in outputs if t.role == "text")
        self.alarm = _first(outputs, "alarm")
        self.chosen_class = _first(outputs, "class")
        self.floats = tuple(t.name for t in outputs if t.datatype.startswith("FP"))
        self.vocabulary: Any = None  # of a language model; whoever loads it says
        self._index = {name: i for i, name in enumerate(entities)}
        self._all = tuple(
            Wanted("", self.output_names, (binary,) * len(outputs)) for binary in (False, True)
        )
        self.forms: dict[bytes, Any] = {}  # of requests that were read; belongs to who reads them

    def indices(self, names: Sequence[str]) -> Array:
        """Return the indices of entities in this package; -1 for one it has not seen."""
        return np.array([self._index.get(name, -1) for name in names], dtype=np.int64)

    def names(self, indices: Array) -> list[str | None]:
        """Return the names behind indices; None for what is not one."""
        known = self.entities
        return [known[i] if 0 <= i < len(known) else None for i in indices.tolist()]

    def class_name(self, index: int) -> str | None:
        """Return what a class is called; None where the model abstains or nobody named it."""
        return self.classes[index] if 0 <= index < len(self.classes) else None

    def all_outputs(self, request_id: str, *, binary: bool) -> Wanted:
        """Return the wish for every output."""
        if not request_id:  # the same wish again and again
            return self._all[binary]
        return Wanted(request_id, self.output_names, self._all[binary].binary)


def _first(tensors: Sequence[Tensor], role: str) -> str | None:
    return next((t.name for t in tensors if t.role == role), None)


def _image_size(tensor: Tensor | None) -> int:
    """Return the working size of a package in pixels; 0 where it takes no images."""
    return tensor.shape[1] if tensor and len(tensor.shape) == _IMAGE_DIMENSIONS else 0


def describe_model(
    line: str, versions: Sequence[str], manifest: Manifest, parameters: Mapping[str, float]
) -> dict[str, Any]:
    """Return the answer to GET /v2/models/{line}.

    Besides what the protocol asks for, every tensor has its role, and `parameters` says what the
    numbers in the tensors are.

    Args:
        line: Name of the line.
        versions: Packages that answer.
        manifest: Of the package that is described.
        parameters: The values that hold now.
    """
    told: dict[str, Any] = {n: manifest.settings[n] for n in _TOLD if n in manifest.settings}
    if manifest.classes:
        told["classes"] = manifest.classes
    if parameters:
        told["parameters"] = dict(parameters)
    return {
        "name": line,
        "versions": versions,
        "platform": f"genba_{manifest.engine.name}",
        "inputs": [_tensor(t) for t in manifest.signature.inputs],
        "outputs": [_tensor(t) for t in manifest.signature.outputs],
        "parameters": told,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    more: dict[str, Any] = {"role": tensor.role}
    if tensor.unit:
        more["unit"] = tensor.unit
    if tensor.default is not None:
        more["default"] = tensor.default
    if tensor.role in _OPTIONAL:
        more["optional"] = True
    if tensor.role == "image":
        more["also"] = "BYTES [-1]: JPEG or PNG, in JSON as base64"
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
        "parameters": more,
    }


def same_requests(mine: Signature, theirs: Signature) -> bool:
    """Say whether two packages can answer the same requests.

    Working size of images, default of a parameter, number of classes and width of a map may
    differ: images are sent as files or scaled, and answers carry their shapes. One may say where
    its answers come from and the other not.
    """
    return _asked(mine.inputs) == _asked(theirs.inputs) and _given(mine.outputs) == _given(
        theirs.outputs
    )


_ADDED: Final = "origin"  # a role of outputs that a package may have besides
_ANY_SIZE: Final = frozenset({"map", "mask", "embedding", "look", "probability"})


def _asked(tensors: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    return [(t.name, t.datatype, t.role, t.role == "image" or t.shape) for t in tensors]


def _given(tensors: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    return [
        (t.name, t.datatype, t.role, len(t.shape) if t.role in _ANY_SIZE else t.shape)
        for t in tensors
        if t.role != _ADDED
    ]
