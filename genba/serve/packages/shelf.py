"""Which packages are in memory when not all of them fit: those that were asked last.

Pure arithmetic over what is known of each package; nothing here loads or frees anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A package in memory."""

    bytes: int
    loaded_s: float  # when it was loaded, by the monotonic clock
    used_s: float = 0.0  # when it was last asked, the same

    @property
    def since_s(self) -> float:
        """When somebody last cared about it."""
        return max(self.loaded_s, self.used_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """How much fits, and how long a package stays once it is there.

    The minimum stay keeps packages that are asked in turn from pushing each other out with every
    request: then those that are there go on answering, and the others wait or are refused.
    """

    capacity_bytes: int
    stay_s: float

    def make_room(self, kept: Mapping[str, Kept], size: int, now_s: float) -> list[str] | None:
        """Return who must leave so that a package of `size` bytes fits; None when none may yet.

        A package that is larger than the whole shelf may have it for itself.

        Args:
            kept: What is in memory, by package.
            size: Of the package that shall come, in bytes.
            now_s: The monotonic clock.

        Example:
            >>> shelf = Shelf(capacity_bytes=100, stay_s=10)
            >>> kept = {"a": Kept(bytes=60, loaded_s=0, used_s=5), "b": Kept(bytes=40, loaded_s=1)}
            >>> shelf.make_room(kept, 30, now_s=20)
            ['b']
            >>> shelf.make_room(kept, 30, now_s=10) is None
            True
        """
        free = self.capacity_bytes - sum(one.bytes for one in kept.values())
        leaving: list[str] = []
        for package in sorted(kept, key=lambda p: kept[p].since_s):
            if size <= free:
                break
            if now_s - kept[package].since_s < self.stay_s:
                return None
            leaving.append(package)
            free += kept[package].bytes
        return leaving
