"""Follows the keys of a home, on a thread of its own: loading a package delays no revocation."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from genba.core import keys
from genba.core.keys import Key
from genba.serve.limits import Limits
from genba.store.keys import mark_used
from genba.store.ledger import Ledger

_log = logging.getLogger("genba.serve")
_DAY_S: Final = 86_400
_USED_S: Final = 60.0  # between two looks at which keys were used


class KeyWatch:
    """Reads `key.…` events as they come, and records on which days a key was used.

    Args:
        ledger: Where they are.
        limits: Of the server.
        hand_over: Takes the keys as they are now to the event loop; called on this thread.
        used: Returns the ids of keys that were used since it was called last.
    """

    def __init__(
        self,
        ledger: Ledger,
        limits: Limits,
        hand_over: Callable[[Mapping[str, Key]], None],
        used: Callable[[], set[str]],
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._hand_over = hand_over
        self._used = used
        self._seq = 0
        self._keys: dict[str, Key] = {}
        self._marked: set[tuple[str, int]] = set()  # (key, day) that the ledger knows
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="genba-keys", daemon=True)

    def start(self) -> None:
        """Go on watching, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, and record what was used."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def poll(self) -> None:
        """Look for new keys, and for keys that were revoked, once."""
        head, _ = self._ledger.head()
        if head == self._seq:
            return
        events = self._ledger.events(after=self._seq, kinds=keys.KINDS)
        self._seq = max(head, events[-1].seq if events else 0)
        self._keys = keys.fold(events, self._keys)
        if any(event.kind != keys.USED for event in events):
            self._hand_over(self._keys)

    def mark(self) -> None:
        """Record which keys were used, once for each key and day."""
        now_s = time.time()
        new = {(id, int(now_s // _DAY_S)) for id in self._used()} - self._marked
        if new:
            mark_used(self._ledger, {id for id, _ in new}, round(now_s * 1_000))
            self._marked |= new

    def _run(self) -> None:
        marked_s = time.monotonic()
        while not self._stopping.wait(self._limits.keys_s):
            self._safely(self.poll)
            if time.monotonic() - marked_s >= _USED_S:
                marked_s = time.monotonic()
                self._safely(self.mark)
        self._safely(self.mark)

    def _safely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # without this thread no key is ever revoked
            _log.error("keys are not followed: %s", error)
