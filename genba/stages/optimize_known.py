"""What an earlier search found for a line on its target; `genba codesign` records it."""

from genba.codesign.values import Point
from genba.core.line import Line
from genba.store.home import Store
from genba.store.ledger import Record

KIND = "codesign"  # of the record, and the reason of the run that makes it


def newest_choice(store: Store, line: Line) -> Record | None:
    """Return the newest search of a line on its target that found something; None without one."""
    for record in store.ledger.find(KIND, line=line.name):
        if record.body.get("target") == line.target.device and record.body.get("choice"):
            return record
    return None


def known_points(store: Store, line: Line) -> tuple[Point, ...]:
    """Return what was chosen for a line on its target, to be tried first.

    The variant of the model is left out: the line says which model is trained.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from genba.core.line import Data
        >>> line = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))
        >>> with Store.open(Path(tempfile.mkdtemp()) / "home", create=True) as store:
        ...     known_points(store, line)
        ()
    """
    found = newest_choice(store, line)
    if found is None:
        return ()
    choice = found.body["choice"]
    return (Point(engine=choice["engine"], settings=choice["settings"], form=choice["form"]),)
