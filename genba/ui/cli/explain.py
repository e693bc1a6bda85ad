"""`genba explain`: the page of an error, offline."""

import sys

from rich.markdown import Markdown
from rich.text import Text

from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.ui.cli.answer import Answer, heading, table
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.pages import page, titles


def explain(code: str = "", /, *, options: Options = DEFAULT) -> Answer:
    """Explain an error code, or list them all.

    Args:
        code: The code that an error message shows, such as G102.
        options: Common options.
    """
    del options
    known = titles()
    if not code:
        rows = [(name, title) for name, title in known.items()]
        return Answer(
            data={"codes": known},
            blocks=[heading("Everything that can go wrong, by code"), table(["code", ""], rows)],
            next=("genba explain G102",),
        )
    text = page(code.upper())
    if text is None:
        near = nearest(code.upper(), list(known))
        raise Problem(
            "G109",
            f"There is no error {code}.",
            tries=[f"genba explain {near}" if near else "genba explain"],
        )
    return Answer(
        data={"code": code.upper(), "title": known[code.upper()], "page": text},
        blocks=[Markdown(text) if sys.stdout.isatty() else Text(text.rstrip())],
    )
