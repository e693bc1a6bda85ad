"""The machine that the numbers of a report belong to."""

import platform
from datetime import UTC, datetime
from typing import Any

from genba.targets.probe import load_average, probe


def stamp() -> dict[str, Any]:
    """Return the date and the machine, for the head of a report."""
    machine = probe()
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": machine.processor,
            "cores": machine.cores,
            "memory_mib": machine.memory_mib,
            "system": machine.system,
            "python": platform.python_version(),
        },
        "load_1m": load_average(),
    }
