"""How to serve, and how a process is told so on its command line."""

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from genba.serve.access.tls import Tls
from genba.serve.limits import Limits

DEFAULT_PORT: Final = 8080


@dataclass(frozen=True, kw_only=True, slots=True)
class Siblings:
    """The processes that share a port, this one among them."""

    workers: int = 1
    folder: Path | None = None  # private to them; None for one process alone
    parent: int | None = None  # process id of who started this one; when it is gone, it ends

    @property
    def own(self) -> Path | None:
        """Path of the Unix socket on which this process tells its siblings how it is doing."""
        return self.folder and self.folder / f"{os.getpid()}.sock"

    @property
    def others(self) -> tuple[Path, ...]:
        """The sockets of the others; one of them may have just died."""
        found = sorted(self.folder.glob("*.sock")) if self.folder else []
        return tuple(path for path in found if path != self.own)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to serve."""

    home: Path | None = None  # $GENBA_HOME or ./.genba
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  # 0 takes a free one
    grpc_port: int | None = None  # None: no gRPC; 0 takes a free one
    key: str | None = field(default=None, repr=False)  # one that allows everything
    tls: Tls | None = None
    behind_proxy: bool = False  # a proxy in front speaks TLS
    origins: tuple[str, ...] = ()  # of pages elsewhere that may ask
    siblings: Siblings = Siblings()
    limits: Limits = field(default_factory=Limits)

    @property
    def url(self) -> str:
        """Where it answers.

        Example:
            >>> Settings(host="::1", port=80).url
            'http://[::1]:80'
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def arguments(settings: Settings) -> list[str]:
    """Return the command line that says the same; key and limits are not on it.

    Example:
        >>> arguments(Settings(port=0, origins=("https://board.example",)))
        ['--host', '127.0.0.1', '--port', '0', '--allow-origin', 'https://board.example']
    """
    tls, siblings = settings.tls, settings.siblings
    said: list[tuple[str, object]] = [
        ("--home", settings.home),
        ("--host", settings.host),
        ("--port", settings.port),
        ("--grpc-port", settings.grpc_port),
        ("--tls-cert", tls and tls.cert),
        ("--tls-key", tls and tls.key),
        *(("--allow-origin", origin) for origin in settings.origins),
        ("--workers", siblings.workers if siblings.workers > 1 else None),
        ("--siblings", siblings.folder),
        ("--parent", siblings.parent),
    ]
    words = [word for name, value in said if value is not None for word in (name, str(value))]
    return [*words, "--behind-proxy"] if settings.behind_proxy else words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a parser read what `arguments` wrote."""
    parser.add_argument("--home", type=Path, default=None, help="$GENBA_HOME or ./.genba")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free port")
    parser.add_argument("--grpc-port", type=int, default=None, help="answer gRPC there as well")
    parser.add_argument("--tls-cert", type=Path, default=None, help="PEM, with its chain")
    parser.add_argument("--tls-key", type=Path, default=None, help="PEM")
    parser.add_argument("--behind-proxy", action="store_true", help="a proxy speaks TLS")
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN")
    for name, kind in (("--workers", int), ("--siblings", Path), ("--parent", int)):
        parser.add_argument(name, type=kind, default=None, help=argparse.SUPPRESS)


def read(given: argparse.Namespace) -> Settings:
    """Return the settings of a command line, with the key of the environment.

    The key is read from GENBA_SERVE_KEY: a command line is visible to others.
    """
    tls = given.tls_cert or given.tls_key
    environment = os.environ
    return Settings(
        home=given.home,
        host=given.host,
        port=given.port,
        grpc_port=given.grpc_port,
        key=environment.get("GENBA_SERVE_KEY") or None,
        tls=Tls(cert=given.tls_cert or tls, key=given.tls_key or tls) if tls else None,
        behind_proxy=given.behind_proxy or environment.get("GENBA_SERVE_BEHIND_TLS") == "1",
        origins=tuple(given.allow_origin),
        siblings=Siblings(workers=given.workers or 1, folder=given.siblings, parent=given.parent),
    )
