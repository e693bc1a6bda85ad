"""`genba export`: what a line has in service, as another system takes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cyclopts import Parameter

from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.export_kserve import Context, write_context
from genba.ui.cli.figures import short
from genba.ui.cli.lookup import known_line, open_home
from genba.ui.cli.options import DEFAULT, Options


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """How the container is made."""

    image: str = ""
    """Name under which it will be pushed (default: NAME: and a piece of its package)."""

    wheel: Path | None = None
    """A wheel of Genba to install instead of the one of the package index."""


_PLAIN: Final = Image()


def export(
    what: Literal["kserve"],
    name: str,
    /,
    *,
    to: Path,
    container: Image = _PLAIN,
    force: bool = False,
    options: Options = DEFAULT,
) -> Answer:
    """Write what a line has in service for another system: kserve.

    A folder from which a container is built and the manifest that lets KServe run it: exactly the
    packages in service, signed, in their roles; no rows, no predictions and no key.

    Args:
        what: The system: kserve.
        name: The line.
        to: The folder; it is made.
        container: How it is made.
        force: Replace a folder that is there.
        options: Common options.
    """
    del what  # there is one so far
    with open_home(options) as store:
        line = known_line(store, name)
        context = Context(
            line=line.name, folder=to, image=container.image, wheel=container.wheel, force=force
        )
        made = write_context(store, context)
    return Answer(
        data={"line": name, "folder": str(to), **made},
        blocks=[
            heading(f"{to} is written: {name} for KServe", mark="yes"),
            facts(
                [
                    ("packages", ", ".join(short(p) for p in made["packages"])),
                    ("image", made["image"]),
                    ("memory", made["memory"]),
                    ("key", f"from the Secret {made['secret']}, which you make"),
                ]
            ),
        ],
        next=(
            f"docker build -t {made['image']} {to}",
            f"kubectl create secret generic {made['secret']} --from-literal=key=TOKEN",
            f"kubectl apply -f {to / made['manifest']}",
        ),
    )
