"""Start the server in a container, on a copy of the packages that the image carries.

The image may be read-only: what the server writes goes to GENBA_HOME, a volume. A volume that has
a home already keeps it, with what was served since.
"""

import os
import shutil
import sys
from pathlib import Path

LEDGER = "ledger.db"


def prepare(shipped: Path, home: Path) -> None:
    """Copy the home of the image unless the volume has one; the ledger last, and at once."""
    if (home / LEDGER).exists():
        return
    shutil.copytree(shipped, home, ignore=shutil.ignore_patterns(f"{LEDGER}*"), dirs_exist_ok=True)
    shutil.copyfile(shipped / LEDGER, home / f"{LEDGER}.new")
    (home / f"{LEDGER}.new").replace(home / LEDGER)


def main() -> None:
    """Prepare the home and become the server."""
    shipped = Path(os.environ.get("GENBA_SHIPPED", "/opt/genba/home"))
    home = Path(os.environ.get("GENBA_HOME", "/var/lib/genba"))
    prepare(shipped, home)
    host, port = os.environ.get("GENBA_HOST", "0.0.0.0"), os.environ.get("GENBA_PORT", "8080")  # noqa: S104  # a container is reached from outside it; a key is needed
    where = ["--home", str(home), "--host", host, "--port", port, "--behind-proxy"]
    command = [sys.executable, "-m", "genba.serve", *where, *sys.argv[1:]]
    os.execv(sys.executable, command)  # noqa: S606  # the very point: no process in between


if __name__ == "__main__":
    main()
