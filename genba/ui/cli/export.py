"""`genba export`: what a line has in service, as another system or a device takes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cyclopts import Parameter

from genba.stages.edge_export import Order
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.export_edge import write_release
from genba.ui.cli.export_kserve import Context, write_context
from genba.ui.cli.figures import short
from genba.ui.cli.lookup import known_line, open_home
from genba.ui.cli.options import DEFAULT, Options


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """What depends on the system it is for."""

    image: str = ""
    """kserve: name under which it will be pushed (default: NAME: and a piece of its package)."""

    wheel: Path | None = None
    """kserve: a wheel of Genba to install instead of the one of the package index."""

    target: str | None = None
    """edge: the device it is for (default: the line's own target)."""

    key: Path | None = None
    """edge: an ECDSA P-256 key that signs it (default: the home's own, made at first use)."""

    days: float | None = None
    """edge: devices refuse it after so many days (default: never)."""


_PLAIN: Final = How()


def export(
    what: Literal["kserve", "edge"],
    name: str,
    /,
    *,
    to: Path,
    how: How = _PLAIN,
    force: bool = False,
    options: Options = DEFAULT,
) -> Answer:
    """Write what a line has in service for KServe, or for devices (edge).

    kserve: a folder from which a container is built and the manifest that lets KServe run it:
    exactly the packages in service, signed, in their roles; no rows, no predictions and no key.

    edge: a signed release for devices: package, interface, bill of materials, model card and the
    runtime that verifies and runs it. OpenSSF's `model_signing` verifies it too.

    Args:
        what: The system: kserve or edge.
        name: The line.
        to: The folder; it is made.
        how: What depends on the system.
        force: Replace what is there.
        options: Common options.
    """
    with open_home(options) as store:
        line = known_line(store, name)
        if what == "edge":
            order = Order(
                line=line.name,
                folder=to,
                target=how.target,
                key=how.key,
                days=how.days,
                force=force,
            )
            return write_release(store, order)
        context = Context(line=line.name, folder=to, image=how.image, wheel=how.wheel, force=force)
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
