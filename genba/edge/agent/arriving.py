"""A release that is opened while another one goes on answering."""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from genba.edge.agent.values import Install


class Closes(Protocol):
    """What can be let go of."""

    def close(self) -> None:
        """Let go of what it holds."""
        ...


Opened = TypeVar("Opened", bound=Closes)


class Arriving(Generic[Opened]):
    """Opens a release on a thread.

    Args:
        install: The release.
        make: Opens it.
    """

    def __init__(self, install: Install, make: Callable[[], Opened]) -> None:
        self.install = install
        self._make = make
        self._opened: Opened | None = None
        self._trouble = ""
        self._lock = threading.Lock()
        self._dropped = False
        self._thread = threading.Thread(target=self._run, name="genba-opening", daemon=True)
        self._thread.start()

    def ready(self, tell: Callable[[str], None]) -> bool:
        """Say whether it is open and nobody has taken it; a failure is told once."""
        with self._lock:
            if self._trouble:
                tell(f"release {self.install.release} cannot be opened: {self._trouble}")
                self._trouble = ""
            return self._opened is not None

    def take(self) -> Opened | None:
        """Return what was opened, once; None while it is not."""
        with self._lock:
            opened, self._opened = self._opened, None
            return opened

    def drop(self) -> None:
        """Let go of it, now or as soon as it is open."""
        with self._lock:
            self._dropped = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _run(self) -> None:
        try:
            opened = self._make()
        except Exception as error:  # noqa: BLE001  # what is on trial may not disturb the rest
            self._trouble = str(error)
            return
        with self._lock:
            if not self._dropped:
                self._opened = opened
                return
        opened.close()
