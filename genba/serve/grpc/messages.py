"""The messages of the protocol, made from `inference.proto` when the server starts.

They live in a pool of their own. In the one that all programs share they would collide with those
of another client of the protocol in the same process.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILE: Final = "inference.proto"
_TOKENS: Final = re.compile(r"//[^\n]*|\"[^\"]*\"|[\w.]+|[^\w\s]")
_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    name: getattr(_FIELD, f"TYPE_{name.upper()}")
    for name in (
        "bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64",
    )
}  # fmt: skip


class _Reader:
    """Reads the part of the language that `inference.proto` is written in."""

    def __init__(self, text: str) -> None:
        found: list[str] = _TOKENS.findall(text)
        self._tokens = [token for token in found if not token.startswith("//")]
        self._at = 0

    def file(self) -> descriptor_pb2.FileDescriptorProto:
        made = descriptor_pb2.FileDescriptorProto(name=f"genba/{_FILE}", syntax="proto3")
        while self._at < len(self._tokens):
            match self._next():
                case "syntax":
                    self._skip("=", '"proto3"', ";")
                case "package":
                    made.package = self._next()
                    self._skip(";")
                case "service":
                    self._service(made.service.add(name=self._next()))
                case "message":
                    self._message(made.message_type.add(name=self._next()))
                case "enum":
                    self._enum(made.enum_type.add(name=self._next()))
                case other:
                    raise ValueError(f"{other!r} is not understood")
        return made

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _skip(self, *tokens: str) -> None:
        for token in tokens:
            if (found := self._next()) != token:
                raise ValueError(f"{found!r} stands where {token!r} should")

    def _until(self, end: str) -> Iterator[str]:
        while (token := self._next()) != end:
            yield token

    def _service(self, made: Any) -> None:
        self._skip("{")
        for _ in self._until("}"):
            method = made.method.add(name=self._next())
            method.client_streaming, method.input_type = self._side()
            self._skip("returns")
            method.server_streaming, method.output_type = self._side()
            self._skip("{", "}")

    def _side(self) -> tuple[bool, str]:
        *stream, name = self._until_closed()
        return bool(stream), name

    def _until_closed(self) -> list[str]:
        self._skip("(")
        return list(self._until(")"))

    def _enum(self, made: Any) -> None:
        self._skip("{")
        for name in self._until("}"):
            self._skip("=")
            made.value.add(name=name, number=int(self._next()))
            self._skip(";")

    def _message(self, made: Any) -> None:
        self._skip("{")
        for token in self._until("}"):
            match token:
                case "message":
                    self._message(made.nested_type.add(name=self._next()))
                case "oneof":
                    made.oneof_decl.add(name=self._next())
                    self._skip("{")
                    for kind in self._until("}"):
                        self._field(made, kind).oneof_index = 0
                case "map":
                    self._map(made)
                case "repeated":
                    self._field(made, self._next()).label = _FIELD.LABEL_REPEATED
                case kind:
                    self._field(made, kind)

    def _field(self, made: Any, kind: str) -> Any:
        field = made.field.add(name=self._next(), label=_FIELD.LABEL_OPTIONAL)
        _type(field, kind)
        self._skip("=")
        field.number = int(self._next())
        self._skip(";")
        return field

    def _map(self, made: Any) -> None:
        """A map is a list of entries, each a message with a key and a value."""
        self._skip("<", "string", ",")
        kind = self._next()
        self._skip(">")
        field = self._field(made, "string")
        field.label = _FIELD.LABEL_REPEATED
        entry = made.nested_type.add(name=field.name.title().replace("_", "") + "Entry")
        entry.options.map_entry = True
        for number, (name, what) in enumerate((("key", "string"), ("value", kind)), start=1):
            _type(entry.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL), what)
        field.ClearField("type")
        field.type_name = entry.name


def _type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind  # the pool finds it, and whether it is a message


def _read() -> Any:
    text = files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_Reader(text).file())
    return pool.FindFileByName(f"genba/{_FILE}")


FILE: Final[Any] = _read()
SERVICE: Final[Any] = FILE.services_by_name["GRPCInferenceService"]

_CLASSES: Final[dict[str, Any]] = {
    name: message_factory.GetMessageClass(found)
    for name, found in FILE.message_types_by_name.items()
}


def message(name: str) -> Any:
    r"""Return the class of a message.

    Example:
        >>> message("ModelReadyRequest")(name="pump").SerializeToString()
        b'\n\x04pump'
    """
    return _CLASSES[name]
