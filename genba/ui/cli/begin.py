"""`genba init`: a home, and something that runs."""

from pathlib import Path

from genba.core.io import make_dirs_durable, write_durable
from genba.core.problem import Problem
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.example import LINE, rows
from genba.ui.cli.lookup import open_home
from genba.ui.cli.options import DEFAULT, Options


def init(folder: Path = Path(), /, *, force: bool = False, options: Options = DEFAULT) -> Answer:
    """Make the factory's home here, with an example line.

    The example is small and its rows are generated; it runs without a network in under a minute.

    Args:
        folder: Where to write the example (default: here).
        force: Overwrite an example that is already there.
        options: Common options.
    """
    line, data = folder / "pump.toml", folder / "pump.csv"
    for path in (line, data):
        if path.exists() and not force:
            raise Problem(
                "G111",
                f"{path} is already there.",
                where=str(path),
                tries=[f"genba run {line}", f"genba init {folder} --force"],
            )
    with open_home(options, create=True) as store:
        home = str(store.path)
    make_dirs_durable(folder.absolute())
    text = rows()
    write_durable(data.absolute(), text.encode())
    write_durable(line.absolute(), LINE.encode())
    return Answer(
        data={"home": home, "line": str(line), "data": str(data), "generated": True},
        blocks=[
            heading("A factory, and a first line for it", mark="yes"),
            facts(
                [
                    ("home", home),
                    ("line", str(line)),
                    ("data", f"{data}, {text.count(chr(10)) - 1:,} rows, generated"),
                ]
            ),
        ],
        next=(f"cd {folder}", "genba run pump.toml")
        if folder != Path()
        else ("genba run pump.toml",),
    )
