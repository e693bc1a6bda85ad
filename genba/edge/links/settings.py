"""The link file, `links.toml`: what comes from where in which unit, and where the answers go."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from genba.core.codec import decode, nearest
from genba.core.ids import check_name
from genba.core.linefile import find_key
from genba.core.problem import Problem

_MOST: Final = 1 << 20  # bytes of a link file


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """How a number of the other side becomes a value of a reading: number x scale + offset."""

    unit: str = ""  # of the value after scaling; converted to what the model wants
    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()  # numbers that mean "no value", before scaling


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldColumn(Column):
    """A field of a message or a column of a file."""

    field: str = (
        ""  # as it is called there, dots for fields inside fields; "" = as it is called here
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeColumn(Column):
    """An OPC UA node."""

    node: str  # "ns=2;s=Turbine.{entity}.Wind"


RegisterType = Literal[
    "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bool"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterColumn(Column):
    """Modbus registers, 16 bits each."""

    register: int  # the first, from 0; the entity's own is added
    type: RegisterType = "int16"
    table: Literal["holding", "input", "coil", "discrete"] = "holding"


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkSettings:
    """What every link has."""

    name: str = ""  # its name in the file
    user: str = ""
    password_file: str = ""  # a file that holds it; never the password itself
    timeout_ms: int = 2_000
    entity: str = ""  # of readings that name none
    hold_ms: int | None = None  # how long its newest values may stand beside another link's


@dataclass(frozen=True, kw_only=True, slots=True)
class MqttSettings(LinkSettings):
    """A broker."""

    address: str  # mqtt://HOST:PORT, mqtts:// for TLS
    version: Literal["3.1.1", "5"] = "3.1.1"
    client_id: str = ""  # the same after a restart, so that the broker keeps what came meanwhile
    topic: str = ""  # to read from, + and # allowed; "" = nothing is read
    answers: str = ""  # to write to, {line} and {entity} allowed; "" = nothing is written
    payload: Literal["json", "image"] = "json"
    entity_level: int | None = None  # level of the topic that names the entity, from 0
    entity_field: str = "entity"
    time_field: str = "time"  # ms since 1970, or ISO 8601; without it, the time of receiving
    id_field: str = "id"
    image_field: str = "image"  # base64, in JSON
    qos: Literal[0, 1] = 1
    keepalive_s: int = 30
    session_days: float = 10.0  # how long a broker of version 5 keeps what is not acknowledged
    ca_file: str = ""  # who may have signed the broker's certificate
    certificate_file: str = ""  # of this device
    key_file: str = ""
    columns: Mapping[str, FieldColumn] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpcUaSettings(LinkSettings):
    """An OPC UA server."""

    address: str  # opc.tcp://HOST:PORT/PATH
    mode: Literal["poll", "subscribe"] = "poll"
    every_ms: int = 1_000  # between polls; of a subscription, between its notifications
    entities: tuple[str, ...] = ()  # {entity} in a node stands for each of them
    security: str = ""  # "Basic256Sha256,SignAndEncrypt,cert.pem,key.pem"; "" = none
    uncertain: Literal["missing", "use"] = "missing"  # values of uncertain quality
    columns: Mapping[str, NodeColumn] = field(default_factory=dict)
    answers: Mapping[str, NodeColumn] = field(default_factory=dict)  # output -> where it is written
    heartbeat: NodeColumn | None = None  # counts up each second while the device serves


@dataclass(frozen=True, kw_only=True, slots=True)
class ModbusSettings(LinkSettings):
    """A Modbus TCP server."""

    address: str  # tcp://HOST:PORT
    device: int = 1  # unit identifier
    every_ms: int = 1_000
    word_order: Literal["big", "little"] = "big"  # of values longer than a register
    entities: Mapping[str, int] = field(default_factory=dict)  # entity -> added to each register
    time: RegisterColumn | None = None  # when the values were read, unit "s" or "ms" since 1970
    sequence: RegisterColumn | None = None  # counts up whenever the values change
    columns: Mapping[str, RegisterColumn] = field(default_factory=dict)
    answers: Mapping[str, RegisterColumn] = field(default_factory=dict)
    heartbeat: RegisterColumn | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesSettings(LinkSettings):
    """A folder of images or of CSV files that others write."""

    folder: str
    pattern: str = "*"
    format: Literal["image", "csv"] = "image"
    every_ms: int = 500
    settle_ms: int = 200  # an image that was not changed for so long is whole
    entity_field: str = "entity"
    time_field: str = "time"
    columns: Mapping[str, FieldColumn] = field(default_factory=dict)
    answers: str = ""  # a file that every answer is appended to, one JSON object per line


KINDS: Final[Mapping[str, type[LinkSettings]]] = {
    "mqtt": MqttSettings,
    "opcua": OpcUaSettings,
    "modbus": ModbusSettings,
    "files": FilesSettings,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class BufferSettings:
    """How much the device keeps while nobody takes it."""

    days: float = 10.0
    most_mib: float = 64.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSettings:
    """Which readings are kept for people to label."""

    near: float = 0.8  # uncertainty from which on a reading is near the threshold, 0..1
    share: float = 0.001  # of the rest, by chance
    per_day: int = 50  # at most
    alike: float = 0.05  # readings that differ by less are one, as a share of their usual range


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """A link file that makes sense."""

    links: Mapping[str, LinkSettings]
    kinds: Mapping[str, str]  # name -> kind
    leader: str = ""  # whose readings ask for answers; the others stand beside them
    tolerance_ms: int | None = (
        None  # how far off its step a reading may be; the model's own if None
    )
    without: tuple[str, ...] = ()  # columns of the model that this device does not have
    buffer: BufferSettings = field(default_factory=BufferSettings)
    samples: SampleSettings = field(default_factory=SampleSettings)


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    links: Mapping[str, Any]
    leader: str = ""
    tolerance_ms: int | None = None
    without: tuple[str, ...] = ()
    buffer: BufferSettings = field(default_factory=BufferSettings)
    samples: SampleSettings = field(default_factory=SampleSettings)


def load_links(path: Path) -> Links:
    """Read a link file.

    Raises:
        Problem: G101 when there is none, G106 when it is not TOML, otherwise as `parse_links`, with
            the line of the mistake.
    """
    try:
        data = path.read_bytes()
        text = data[:_MOST].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(
            "G101",
            f"The link file {path} cannot be read.",
            where=str(path),
            why=str(error),
            tries=["genba-edge serve FOLDER --links links.toml", "genba explain G101"],
        ) from error
    return parse_links(text, file=str(path))


def parse_links(text: str, *, file: str = "links.toml") -> Links:
    r"""Turn the text of a link file into settings, strictly.

    Raises:
        Problem: G102 for an unknown key, G103 for a wrong type or a missing value, G104 for a bad
            name, G106 when it is not TOML, G691 when it does not agree with itself.

    Example:
        >>> links = parse_links('[links.camera]\nkind = "files"\nfolder = "/camera"')
        >>> links.leader, links.links["camera"].settle_ms
        ('camera', 200)
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Problem(
            "G106",
            f"{file} is not valid TOML.",
            where=file,
            why=f"{error}.",
            tries=[f"correct {file}", "genba explain G106"],
        ) from error
    try:
        return _checked(tree)
    except Problem as problem:
        raise _placed(problem, text, file) from problem


def _checked(tree: Mapping[str, Any]) -> Links:
    whole = decode(_File, tree)
    links, kinds = {}, {}
    for name, body in whole.links.items():
        links[name], kinds[name] = _link(name, body)
    if not links:
        raise wrong("The link file has no link.", "links", ['[links.plc]\nkind = "opcua"'])
    sources = [name for name, link in links.items() if reads(link)]
    leader = whole.leader or (sources[0] if len(sources) == 1 else "")
    if leader not in sources:
        raise _no_leader(leader, sources)
    _check_samples(whole.samples)
    return Links(
        links=links,
        kinds=kinds,
        leader=leader,
        tolerance_ms=whole.tolerance_ms,
        without=whole.without,
        buffer=whole.buffer,
        samples=whole.samples,
    )


def _link(name: str, body: Any) -> tuple[LinkSettings, str]:
    where = f"links.{name}"
    check_name(name, "link")
    if not isinstance(body, Mapping) or "kind" not in body or body["kind"] not in KINDS:
        given = body.get("kind") if isinstance(body, Mapping) else None
        near = nearest(str(given), list(KINDS)) or next(iter(KINDS))
        raise Problem(
            "G103",
            f"{where}.kind must be one of {', '.join(KINDS)}, not {given!r}.",
            where=f"{where}.kind" if given else where,
            tries=[f'kind = "{near}"', "genba explain G103"],
        )
    rest = {key: value for key, value in body.items() if key != "kind"}
    made = decode(KINDS[body["kind"]], {**rest, "name": name}, where=where)
    if getattr(made, "every_ms", 1) <= 0 or made.timeout_ms <= 0:
        raise wrong(f"{where} must wait at least 1 ms.", where, ["every_ms = 1000"])
    if not reads(made) and not writes(made):
        raise wrong(f"{where} neither reads nor writes.", where, _uses(body["kind"]))
    return made, str(body["kind"])


def reads(link: LinkSettings) -> bool:
    """Say whether readings come from a link."""
    if isinstance(link, FilesSettings):
        return True
    if isinstance(link, MqttSettings):
        return bool(link.topic)
    return bool(getattr(link, "columns", ()))


def writes(link: LinkSettings) -> bool:
    """Say whether answers go to a link."""
    return bool(getattr(link, "answers", ()))


def wrong(what: str, where: str, tries: list[str], why: str = "") -> Problem:
    """Return the Problem of a link file that does not agree with itself or with the package."""
    return Problem("G691", what, where=where, why=why, tries=[*tries, "genba explain G691"])


def _uses(kind: str) -> list[str]:
    reading = 'topic = "plant/+/readings"' if kind == "mqtt" else "columns = { … }"
    return [reading, 'answers = "genba/{entity}"' if kind == "mqtt" else "answers = { … }"]


def _no_leader(leader: str, sources: list[str]) -> Problem:
    if not sources:
        return wrong("No link reads anything.", "links", _uses("mqtt"))
    if not leader:
        what = f"{len(sources)} links read; which one's readings ask for an answer is not said."
    else:
        what = f"The leader {leader!r} is no link that reads."
    near = nearest(leader, sources) or sources[0]
    return wrong(what, "leader", [f'leader = "{near}"'], f"Links that read: {', '.join(sources)}.")


def _check_samples(samples: SampleSettings) -> None:
    for name in ("near", "share", "alike"):
        value = getattr(samples, name)
        if not 0 <= value <= 1:
            raise wrong(
                f"samples.{name} is {value:g}; it must be between 0 and 1.",
                f"samples.{name}",
                [f"{name} = 0.5"],
            )


def _placed(problem: Problem, text: str, file: str) -> Problem:
    number = find_key(text, problem.where) if problem.where else None
    shown = "" if number is None else f":{number}   {text.splitlines()[number - 1].strip()}"
    where = f"{file}{shown}" if shown else f"{file}, {problem.where}".rstrip(", ")
    check = f"genba-edge serve FOLDER --links {file} --check"
    tries = [check if step == "genba check LINE" else step for step in problem.tries]
    why = problem.why.replace("The line file", "The link file")
    return Problem(problem.code, problem.what, where=where, why=why, tries=tries)
