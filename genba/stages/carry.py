"""Whether the package in service has a student, which the next package of the line keeps."""

from typing import Final

from genba.core.rollout import fold
from genba.store.home import Store

STUDENT_FILE: Final = "student.safetensors"
_SETTINGS: Final = "assistant.json"


def student_in_service(store: Store, line: str) -> str | None:
    """Return the blob of the settings that the student in service has; None where there is none."""
    stable = fold(store.ledger.events(line=line, kinds=("deploy",))).stable
    manifest = store.ledger.get("package", stable.package) if stable else None
    files = (manifest or {}).get("files", {})
    if STUDENT_FILE not in files or _SETTINGS not in files:
        return None
    return str(files[_SETTINGS]["digest"])
