"""Where a factory keeps what is for devices."""

from pathlib import Path

FOLDER = "edge"


def edge_folder(home: Path) -> Path:
    """Return the folder of a home."""
    return home / FOLDER
