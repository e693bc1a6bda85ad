"""A real MQTT broker in a process of its own: mosquitto where it is installed, else amqtt."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_PATIENCE_S: Final = 20.0


class Broker:
    """A broker that can be ended, killed and begun again on the same port.

    Args:
        folder: For its files.
        kind: "mosquitto" or "amqtt"; the first that is installed if not given.
        more: Lines for mosquitto's settings, such as certificates.
    """

    def __init__(self, folder: Path, kind: str | None = None, more: str = "") -> None:
        self.kind = kind or installed()[0]
        self.port = free_port()
        self._folder = folder
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What belongs into a link file."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> "Broker":
        """Begin, and wait until it listens."""
        self._folder.mkdir(parents=True, exist_ok=True)
        log = (self._folder / "broker.log").open("ab")
        with log:
            self._process = subprocess.Popen(  # noqa: S603  # our own words
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            wait_for(self.port)
        except TimeoutError:
            self.stop(kill=True)
            raise
        return self

    def stop(self, *, kill: bool = False) -> None:
        """End it; a killed one loses what it had not written down."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            process.wait(_PATIENCE_S)

    def __enter__(self) -> "Broker":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self) -> list[str]:
        if self.kind == "amqtt":
            return [sys.executable, "-m", "genba.testing.broker_amqtt", str(self.port)]
        settings = self._folder / "mosquitto.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {self._folder}/\nmax_queued_messages 0\n{self._more}\n"
        )
        return [str(shutil.which("mosquitto", path=_PATH)), "-c", str(settings)]


_PATH: Final = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin"


def installed() -> tuple[str, ...]:
    """Return the brokers that can be used here."""
    return ("mosquitto", "amqtt") if shutil.which("mosquitto", path=_PATH) else ("amqtt",)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(port: int, patience_s: float = _PATIENCE_S) -> None:
    """Wait until somebody listens on a port.

    Raises:
        TimeoutError: If nobody does.
    """
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")
