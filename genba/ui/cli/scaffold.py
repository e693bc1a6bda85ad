"""A package of one's own from a template: a task, an engine, a source or a target that works.

The templates are real code, checked and tested like everything else; only their names are replaced.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from genba.catalog import KINDS
from genba.core.ids import check_name
from genba.core.io import make_dirs_durable, write_durable
from genba.core.problem import Problem

#: The kinds that can be started from a template.
SCAFFOLDS: Final = ("task", "engine", "source", "target")
_TEMPLATES: Final = Path(__file__).parents[1] / "templates"
_SUFFIXES: Final = (".md", ".py", ".toml")  # and not what Python leaves beside them


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Everything in a package that is named after its entry.

    Example:
        >>> made = Names.of("engine", "my-fast.one")
        >>> made.distribution, made.module, made.type
        ('genba-my-fast-one', 'genba_my_fast_one', 'MyFastOneEngine')
        >>> Names.of("target", "3d").type
        'Target3d'
    """

    entry: str  # in the catalog and in line files
    distribution: str  # for pip
    module: str  # for import; with a prefix, so that it hides no library
    type: str  # of the class

    @classmethod
    def of(cls, kind: str, entry: str) -> "Names":
        """Derive the names of a package from the name of its entry."""
        words = [word for word in re.split(r"[^a-z0-9]+", entry) if word]
        joined, kind_word = "".join(word.capitalize() for word in words), kind.capitalize()
        return cls(
            entry=entry,
            distribution="-".join(["genba", *words]),
            module="_".join(["genba", *words]),
            type=f"{joined}{kind_word}" if joined[0].isalpha() else f"{kind_word}{joined}",
        )

    def put_into(self, text: str, kind: str) -> str:
        """Return the text of a template, or a path in it, with these names in place of its own."""
        for placeholder, name in (
            ("template-name", self.entry),
            ("genba-template", self.distribution),
            ("genba_template", self.module),
            (f"Template{kind.capitalize()}", self.type),
        ):
            text = text.replace(placeholder, name)
        return text


def scaffold(kind: str, name: str, folder: Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write a package that adds one entry to the catalog.

    Args:
        kind: One of `SCAFFOLDS`.
        name: Name of the entry.
        folder: Where the package goes; it is made.
        force: Overwrite files that are there.

    Returns:
        The files that were written.

    Raises:
        Problem: G104 for what is no name or is the name of something in Genba's own catalog, G111
            when the folder is there.
    """
    check_name(name, kind)
    _refuse_known(kind, name)
    if folder.exists() and not force:
        raise Problem(
            "G111",
            f"{folder} is already there.",
            where=str(folder),
            tries=[f"genba check {name}", f"genba new {kind} {name} --force"],
        )
    names = Names.of(kind, name)
    template = _TEMPLATES / kind
    written = []
    for source in sorted(template.rglob("*")):
        if source.suffix not in _SUFFIXES or not source.is_file():
            continue
        path = folder / names.put_into(str(source.relative_to(template)), kind)
        make_dirs_durable(path.parent.absolute())
        text = names.put_into(source.read_text(encoding="utf-8"), kind)
        write_durable(path.absolute(), text.encode())
        written.append(path)
    return tuple(written)


def _refuse_known(kind: str, name: str) -> None:
    """Genba's own entries win over those of packages, and one name is one thing to check."""
    owner = next((k for k in SCAFFOLDS if name in KINDS[k]), None)
    if owner:
        raise Problem(
            "G104",
            f"{name!r} is the name of {'an' if owner == 'engine' else 'a'} {owner} of Genba.",
            why="An entry of your own cannot replace it, and two things of one name confuse.",
            tries=[f"genba new {kind} my-{name}"],
        )
