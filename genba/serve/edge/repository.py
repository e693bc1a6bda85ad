"""The repository that devices pull from: The Update Framework, written with `tuf`.

Keys are of two kinds. Those of the roles root and targets say what exists and who may say so; they
are used by a person who publishes, and belong on a stick, not on this machine. Those of timestamp,
snapshot and director are here, since a server must sign with them: that metadata is fresh, and
which device shall run which of the releases that exist. Who steals them can hold devices back to a
release that was published, and nothing more (Uptane's split of image and director repository).
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # public all the same
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # public all the same
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from genba.core import io
from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.serve.edge.folder import edge_folder
from genba.serve.edge.signing_keys import Keys, new_key, read_key

PLAN: Final = "plan.json"  # target of the director: which device shall run what
DIRECTOR: Final = "director"
ISSUED: Final = "genba_made_ms"
ONLINE: Final = ("timestamp", "snapshot", DIRECTOR)
_ONLINE_KEY: Final = "online.pem"
_SECRET_MODE: Final = 0o600


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetimes:
    """How long metadata is good, from when it is signed."""

    root: timedelta = timedelta(days=3_650)
    targets: timedelta = timedelta(days=3_650)  # a device may lie on a shelf; freshness is below
    snapshot: timedelta = timedelta(days=14)
    director: timedelta = timedelta(days=14)
    timestamp: timedelta = timedelta(days=7)

    def of(self, role: str) -> timedelta:
        """Return the lifetime of a role."""
        found: timedelta = getattr(self, role)
        return found


@dataclass(kw_only=True)
class Plan:
    """Which release each device shall run, and what people decided about it."""

    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)


class Repository:
    """The repository of one home.

    Args:
        home: Of the factory.
        lifetimes: Of what it signs.
        now: Seconds since 1970 UTC.
    """

    def __init__(
        self,
        home: Path,
        *,
        lifetimes: Lifetimes = Lifetimes(),  # frozen
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = edge_folder(home)
        self._lifetimes = lifetimes
        self._now = now

    @property
    def exists(self) -> bool:
        """Whether anything was ever published here."""
        return (self.metadata / "timestamp.json").is_file()

    @property
    def metadata(self) -> Path:
        """Where metadata lies, as it is served."""
        return self.folder / "metadata"

    @property
    def objects(self) -> Path:
        """Where content lies, named by sha256."""
        return self.folder / "objects"

    def root(self) -> bytes:
        """Return the newest root metadata, which devices are enrolled with.

        Raises:
            Problem: G688 when nothing was published yet.
        """
        version = self._newest("root")
        if not version:
            raise nothing_published()
        return (self.metadata / f"{version}.root.json").read_bytes()

    def create(self, keys: Keys) -> None:
        """Begin a repository."""
        with self._changing():
            online = self._online(create=True)
            io.make_dirs_durable(self.metadata)
            self._sign_root(keys, online, keys.root)
            self._sign_targets({}, keys, online)
            self._sign_plan(self.plan(), online)
            self._publish(online)

    def rotate(self, before: Keys, after: Keys, *, online: bool = False) -> None:
        """Put other keys in the place of those it had; devices follow, as both sign the new root.

        Args:
            before: The offline keys that devices trust.
            after: Those that they shall trust; the same where only the online key changes.
            online: Make a new online key too, since the old one may be in other hands.

        Raises:
            Problem: G679 when the keys of before are not those that devices trust.
        """
        with self._changing():
            if online:
                io.write_durable(self.folder / _ONLINE_KEY, new_key(), mode=_SECRET_MODE)
            signer = self._online()
            known = dict(self._load("targets").signed.targets)
            self._sign_root(after, signer, (*before.root, *after.root))
            self._sign_targets(known, after, signer)
            self._sign_plan(self.plan(), signer)
            self._publish(signer)

    def put(self, data: bytes) -> str:
        """Keep content that devices may fetch; return its sha256."""
        target = TargetFile.from_data("content", data, ["sha256"])
        digest: str = target.hashes["sha256"]
        path = self.objects / digest
        if not path.is_file():
            io.make_dirs_durable(self.objects)
            io.write_durable(path, data)
        return digest

    def add_targets(self, contents: Mapping[str, bytes], keys: Keys) -> None:
        """Sign that some targets exist; the offline key is needed."""
        with self._changing():
            online = self._online()
            known = dict(self._load("targets").signed.targets)
            for path, data in contents.items():
                self.put(data)
                known[path] = TargetFile.from_data(path, data, ["sha256"])
            self._sign_targets(known, keys, online)
            self._publish(online)

    def remove_targets(self, paths: tuple[str, ...], keys: Keys) -> None:
        """Sign that some targets exist no more."""
        with self._changing():
            online = self._online()
            known = dict(self._load("targets").signed.targets)
            for path in paths:
                known.pop(path, None)
            self._sign_targets(known, keys, online)
            self._publish(online)

    def targets(self) -> tuple[str, ...]:
        """Return the paths of everything that exists."""
        return tuple(sorted(self._load("targets").signed.targets)) if self.exists else ()

    def read(self, path: str) -> bytes:
        """Return the content of something that exists.

        Raises:
            KeyError: When there is none of that path.
        """
        target = self._load("targets").signed.targets[path]
        return (self.objects / str(target.hashes["sha256"])).read_bytes()

    def plan(self) -> Plan:
        """Return which device shall run what."""
        try:
            body: Any = json.loads((self.folder / PLAN).read_bytes())
        except FileNotFoundError:
            return Plan()
        return Plan(lines=dict(body["lines"]), devices=dict(body["devices"]))

    def change_plan(self, change: Callable[[Plan], None]) -> Plan:
        """Change the plan and sign it with the key that is here.

        Raises:
            Problem: G688 when nothing was published yet; whatever `change` raises.
        """
        with self._changing():
            online = self._online()
            plan = self.plan()
            change(plan)
            self._sign_plan(plan, online)
            self._publish(online)
        return plan

    def renew(self, share: float = 0.5) -> bool:
        """Sign anew what has less than a share of its life left; return whether anything had."""
        if not self._stale(share):
            return False
        with self._changing():
            online = self._online()
            if DIRECTOR in self._stale(share):
                self._sign_plan(self.plan(), online)
            if self._stale(share):  # another process may have been quicker
                self._publish(online)
        return True

    def _stale(self, share: float) -> list[str]:
        now, found = datetime.fromtimestamp(self._now(), UTC), []
        for role in ONLINE:
            left = self._load(role).signed.expires - now
            if left < share * self._lifetimes.of(role):
                found.append(role)
        return found

    def _sign_root(
        self, keys: Keys, online: CryptoSigner, signers: tuple[CryptoSigner, ...]
    ) -> None:
        version = self._newest("root")
        root = Root(version=version + 1, expires=self._until("root"))
        for role, holders in (("root", keys.root), ("targets", keys.targets)):
            for holder in holders:
                root.add_key(holder.public_key, role)
        for role in ("timestamp", "snapshot"):
            root.add_key(online.public_key, role)
        root.roles["root"].threshold = keys.threshold
        made = Metadata(root)
        for signer in {s.public_key.keyid: s for s in signers}.values():
            made.sign(signer, append=True)
        if version:
            _check_signed(self._load("root"), "root", made)
        io.write_durable(self.metadata / f"{version + 1}.root.json", made.to_bytes())

    def _sign_targets(self, known: dict[str, Any], keys: Keys, online: CryptoSigner) -> None:
        version = self._newest("targets") + 1
        role = {
            "keyids": [online.public_key.keyid],
            "name": DIRECTOR,
            "paths": [PLAN],
            "terminating": True,
            "threshold": 1,
        }
        body = Targets(version=version, expires=self._until("targets"), targets=known).to_dict()
        key = online.public_key
        body["delegations"] = {"keys": {key.keyid: key.to_dict()}, "roles": [role]}
        made = Metadata(Targets.from_dict(body))
        for signer in keys.targets:
            made.sign(signer, append=True)
        _check_signed(self._load("root"), "targets", made)
        io.write_durable(self.metadata / f"{version}.targets.json", made.to_bytes())

    def _sign_plan(self, plan: Plan, online: CryptoSigner) -> None:
        data = canonical_json({"format": 1, "lines": plan.lines, "devices": plan.devices})
        self.put(data)
        version = self._newest(DIRECTOR) + 1
        targets = {PLAN: TargetFile.from_data(PLAN, data, ["sha256"])}
        made = Metadata(Targets(version=version, expires=self._until(DIRECTOR), targets=targets))
        made.sign(online)
        io.write_durable(self.metadata / f"{version}.{DIRECTOR}.json", made.to_bytes())
        io.write_durable(self.folder / PLAN, data)

    def _publish(self, online: CryptoSigner) -> None:
        """Sign what belongs together and that it is the newest; devices see all of it or nothing.

        Other metadata is written before, under names with versions; the timestamp is last.
        """
        version = self._newest("snapshot") + 1
        snapshot = Snapshot(version=version, expires=self._until("snapshot"), meta={})
        for role in ("targets", DIRECTOR):
            data = (self.metadata / f"{self._newest(role)}.{role}.json").read_bytes()
            snapshot.meta[f"{role}.json"] = _meta(self._newest(role), data)
        made = Metadata(snapshot)
        made.sign(online)
        data = made.to_bytes()
        io.write_durable(self.metadata / f"{version}.snapshot.json", data)
        before = self._load("timestamp").signed.version if self.exists else 0
        timestamp = Timestamp(
            version=before + 1,
            expires=self._until("timestamp"),
            snapshot_meta=_meta(version, data),
            unrecognized_fields={ISSUED: round(self._now() * 1_000)},
        )
        signed = Metadata(timestamp)
        signed.sign(online)
        io.write_durable(self.metadata / "timestamp.json", signed.to_bytes())

    def _until(self, role: str) -> datetime:
        now = datetime.fromtimestamp(int(self._now()), UTC)
        return now + self._lifetimes.of(role)

    def _load(self, role: str) -> Any:
        name = role if role == "timestamp" else f"{self._newest(role)}.{role}"
        return Metadata.from_file(str(self.metadata / f"{name}.json"))

    def _newest(self, role: str) -> int:
        """Return the newest version of a role's metadata; 0 for none.

        A crash may leave a version that nothing names; it is passed over by the next one.
        """
        found = (path.name.partition(".")[0] for path in self.metadata.glob(f"*.{role}.json"))
        return max((int(text) for text in found if text.isdigit()), default=0)

    def _online(self, *, create: bool = False) -> CryptoSigner:
        path = self.folder / _ONLINE_KEY
        if not path.is_file():
            if not create:
                raise nothing_published()
            io.make_dirs_durable(self.folder)
            io.create_durable(path, new_key(), mode=_SECRET_MODE)
        return read_key(path)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one process at a time change the repository."""
        io.make_dirs_durable(self.folder)
        lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _check_signed(root: Any, role: str, made: Any) -> None:
    """Refuse to write what no device would accept."""
    try:
        root.verify_delegate(role, made)
    except UnsignedMetadataError as error:
        raise Problem(
            "G679",
            f"These are not the keys of {role} that devices trust.",
            why=str(error),
            tries=["genba edge publish LINE --keys DIR", "genba explain G679"],
        ) from error


def nothing_published() -> Problem:
    """Return the Problem of a factory that has nothing for devices yet."""
    return Problem(
        "G688",
        "Nothing was published for devices yet.",
        tries=["genba edge publish LINE", "genba explain G688"],
    )


def _meta(version: int, data: bytes) -> MetaFile:
    digest = TargetFile.from_data("metadata", data, ["sha256"]).hashes
    return MetaFile(version=version, length=len(data), hashes=digest)
