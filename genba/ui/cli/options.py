"""Options that every command has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

_GROUP = Group("Common options", sort_key=99)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Where the factory keeps its things and how the answer is printed."""

    home: Annotated[Path | None, Parameter(group=_GROUP)] = None
    """Folder with the ledger and all files (default: $GENBA_HOME, else ./.genba)."""

    json: Annotated[bool, Parameter(group=_GROUP)] = False
    """Print the answer as JSON on stdout, for programs."""


DEFAULT = Options()
