"""Which release is the newest, by The Update Framework: signed, fresh, and never an older answer.

Needs the library `tuf` (extra `update`); it checks signatures, thresholds, versions, expiry and key
rotation as the specification says (theupdateframework.github.io/specification, version 1.0.31,
section 5). What is added here: nothing it wrote is trusted across a power cut (it does not sync),
so it works in a scratch folder, and what it accepted is kept by the agent in one durable file; and
a clock that is behind the newest signed time does not make anything old look fresh.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import Metadata
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from genba.core.io import explained
from genba.core.problem import Problem
from genba.edge.agent.clock import TrustedTime
from genba.edge.agent.factory import Factory, HttpRefusal

METADATA: Final = "/edge/metadata"
OBJECTS: Final = "/edge/objects"
ISSUED: Final = "genba_made_ms"  # field of the timestamp: when it was signed
PLAN: Final = "plan.json"  # target of the director
DIRECTOR: Final = "director"  # role: what each device shall run, signed online
_ROLES: Final = ("root", "timestamp", "snapshot", "targets", DIRECTOR)
_FAR_MS: Final = 366 * 86_400_000
_ROOT_BYTES: Final = 64 << 10
_SMALL_BYTES: Final = 16 << 10
_LARGE_BYTES: Final = 4 << 20


class Freshness:
    """A device's view of what its factory publishes.

    Args:
        root: The root metadata that the device was enrolled with; used until a newer one is
            trusted.
        metadata: What was accepted before, by role, as it came; filled in place, also when a
            refresh is refused.
        factory: Where to ask.
    """

    def __init__(self, root: bytes, metadata: dict[str, str], factory: Factory) -> None:
        self._factory = factory
        self._metadata = metadata
        self._root = metadata.get("root", "").encode() or root
        self._targets: dict[str, Any] = {}  # target by path
        self.issued_ms = 0  # when the newest timestamp was signed

    def refresh(self, time: TrustedTime, wanted: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        """Bring the metadata up to date, and return the plan of the factory.

        Args:
            time: What time it is.
            wanted: Gets the plan, and returns the path of one more target to look up.

        Raises:
            Problem: G680 when the factory cannot be reached, G681 for metadata that is not signed
                as it must be or does not fit together, G682 for older metadata than before, G683
                for what has expired, G684 when the clock of the device is years off.
        """
        before = self._root_version()
        with self._scratch() as folder:
            for role, text in self._metadata.items():
                (folder / f"{role}.json").write_text(text, encoding="utf-8")
            try:
                updater = self._updater(folder)
                updater.refresh()
                self._targets[PLAN] = updater.get_targetinfo(PLAN)
                self._gather(folder)
                if self._root_version() > before:  # whoever signed a wrong time may be out of it
                    time.begin_anew(self.issued_ms)
                self._check_time(time)
                plan: dict[str, Any] = json.loads(self.read(PLAN))
                path = wanted(plan)
                self._targets[path] = updater.get_targetinfo(path)
            except (RepositoryError, DownloadError) as error:
                self._gather(folder)
                raise self._refusal(error, time) from error
        return plan

    def read(self, path: str) -> bytes:
        """Fetch a small target and check it.

        Raises:
            Problem: G680 when the factory cannot be reached, G681 when there is none, or it is not
                what was signed.
        """
        target = self._targets.get(path)
        if target is None:
            raise refused(f"The factory has signed no {path}.", "")
        data = self._factory.read(f"{OBJECTS}/{target.hashes['sha256']}", target.length)
        try:
            target.verify_length_and_hashes(data)
        except LengthOrHashMismatchError as error:
            raise refused(f"{path} is not what was signed.", str(error)) from error
        return data

    def digest(self, path: str) -> str:
        """Return the sha256 that was signed for a target; "" where there is none."""
        target = self._targets.get(path)
        return "" if target is None else target.hashes["sha256"]

    def _updater(self, folder: Path) -> Updater:
        return Updater(
            str(folder),
            f"{self._factory.url}{METADATA}",
            fetcher=_Fetcher(self._factory),
            config=UpdaterConfig(
                root_max_length=_ROOT_BYTES,
                timestamp_max_length=_SMALL_BYTES,
                snapshot_max_length=_SMALL_BYTES,
                targets_max_length=_LARGE_BYTES,
                prefix_targets_with_hash=False,
            ),
            bootstrap=self._root,
        )

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Give the library a folder to write into; nothing in it outlives the refresh."""
        with (
            explained(Path(tempfile.gettempdir())),
            tempfile.TemporaryDirectory(prefix="genba-edge-") as name,
        ):
            yield Path(name)

    def _root_version(self) -> int:
        text = self._metadata.get("root", "").encode() or self._root
        version: int = Metadata.from_bytes(text).signed.version
        return version

    def _gather(self, folder: Path) -> None:
        """Take over what was accepted; the library keeps nothing that it did not check."""
        for role in _ROLES:
            with contextlib.suppress(OSError):
                path = folder / f"{role}.json"
                self._metadata[role] = path.read_text(encoding="utf-8")
        issued: Any = self._signed("timestamp").unrecognized_fields.get(ISSUED)
        self.issued_ms = issued if isinstance(issued, int) else 0

    def _signed(self, role: str) -> Any:
        text = self._metadata.get(role)
        if text is None:
            return _Nothing()
        return Metadata.from_bytes(text.encode()).signed

    def _check_time(self, time: TrustedTime) -> None:
        """Hold what was accepted against the trusted time as well; the library asked the clock."""
        trusted = datetime.fromtimestamp(max(time.now_ms(), self.issued_ms) / 1e3, UTC)
        for role in _ROLES:
            signed = self._signed(role)
            if not isinstance(signed, _Nothing) and signed.is_expired(trusted):
                raise self._expired(role, signed.expires, time)

    def _refusal(self, error: Exception, time: TrustedTime) -> Problem:
        if isinstance(error, ExpiredMetadataError):
            clock = datetime.fromtimestamp(time.clock.now_ms() / 1e3, UTC)
            for role in _ROLES:
                signed = self._signed(role)
                if not isinstance(signed, _Nothing) and signed.is_expired(clock):
                    return self._expired(role, signed.expires, time)
            return self._expired("timestamp", None, time)
        if isinstance(error, BadVersionNumberError):
            return Problem(
                "G682",
                "The factory answers with older metadata than this device has seen.",
                where=self._factory.url,
                why=f"{error} Somebody replays an old repository, or the factory lost its home.",
                tries=["genba edge devices  # at the factory", "genba explain G682"],
            )
        if isinstance(error, DownloadError):
            cause = error.__cause__
            if isinstance(cause, Problem):
                return cause
            return refused("Metadata of the factory cannot be taken.", str(error))
        return refused("The metadata of the factory is not signed as it must be.", str(error))

    def _expired(self, role: str, expires: datetime | None, time: TrustedTime) -> Problem:
        told = f"{expires:%Y-%m-%d %H:%M} UTC" if expires else "a while ago"
        now_ms = time.clock.now_ms()
        clock = f"{datetime.fromtimestamp(now_ms / 1e3, UTC):%Y-%m-%d %H:%M} UTC"
        if expires is not None and now_ms - expires.timestamp() * 1e3 > _FAR_MS:
            return Problem(
                "G684",
                f"The clock of this device is years off: it says {clock}.",
                where=role,
                why=f"The newest {role} of the factory is good until {told}. Nothing was changed.",
                tries=["date -u", "timedatectl set-ntp true", "genba explain G684"],
            )
        return Problem(
            "G683",
            f"The factory's {role} expired {told}.",
            where=self._factory.url,
            why=f"It is {clock} here. Somebody holds newer metadata back, or the factory is not "
            "running; nothing new is taken until it answers with fresh metadata.",
            tries=["genba up  # at the factory, renews it", "date -u", "genba explain G683"],
        )


def refused(what: str, why: str) -> Problem:
    """Return the Problem of metadata that is not accepted."""
    return Problem(
        "G681",
        what,
        why=why or "Only what the factory signed is taken.",
        tries=["genba-edge update", "genba edge devices  # at the factory", "genba explain G681"],
    )


class _Nothing:
    """Metadata that is not there."""

    unrecognized_fields: Mapping[str, Any] = {}


class _Fetcher(FetcherInterface):
    """Lets the library read through the connection of the device."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix(self._factory.url)
        try:
            return iter([self._factory.read(path, _LARGE_BYTES)])
        except HttpRefusal as refusal:
            if refusal.status == 404:
                raise DownloadHTTPError(refusal.what, refusal.status) from refusal
            raise
