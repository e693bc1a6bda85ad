"""Pages for a person with a browser, each whole in itself: requests by hand, and a conversation."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from genba.serve.http.request import Request

if TYPE_CHECKING:
    from genba.serve.http.routes import App


def _digests(tag: bytes, html: bytes) -> str:
    """Return what a page itself may hold of a kind of code, as a browser checks it."""
    found = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
    made = (base64.b64encode(hashlib.sha256(code).digest()).decode() for code in found)
    return " ".join(f"'sha256-{digest}'" for digest in made)


class Page:
    """One page, with fields by which a browser runs only what it holds.

    It speaks to nobody but this server.

    Args:
        file: Name of the HTML file beside this module.
    """

    def __init__(self, file: str) -> None:
        self._html = files(__package__).joinpath(file).read_bytes()
        policy = (
            "default-src 'none'; "
            f"script-src {_digests(b'script', self._html)}; "
            f"style-src {_digests(b'style', self._html)}; "
            "img-src 'self' blob: data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._fields = (
            f"Content-Security-Policy: {policy}\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            "Referrer-Policy: no-referrer\r\n"
            "Cross-Origin-Opener-Policy: same-origin\r\n"
            "Cache-Control: no-cache\r\n"
        ).encode()

    def __call__(self, app: "App", request: Request, _: tuple[str, ...]) -> None:
        """Answer a GET."""
        app.metrics.answered("page", 200)
        request.respond(200, (self._html,), kind=_KIND, fields=self._fields)


_KIND: Final = b"text/html; charset=utf-8"

#: GET /.
page: Final = Page("page.html")
#: GET /talk: a conversation with a language line, and what somebody thinks of its answers.
talk: Final = Page("talk.html")
