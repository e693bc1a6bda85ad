"""One page for a person with a browser: the lines, and a request by hand. It is whole in itself."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from genba.serve.http.request import Request

if TYPE_CHECKING:
    from genba.serve.http.routes import App

_HTML: Final = files(__package__).joinpath("page.html").read_bytes()


def _digests(tag: bytes) -> str:
    """Return what the page itself may hold of a kind of code, as a browser checks it."""
    found = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), _HTML, re.DOTALL)
    made = (base64.b64encode(hashlib.sha256(code).digest()).decode() for code in found)
    return " ".join(f"'sha256-{digest}'" for digest in made)


#: Nothing but what the page holds runs in it, and it speaks to nobody but this server.
_POLICY: Final = (
    "default-src 'none'; "
    f"script-src {_digests(b'script')}; "
    f"style-src {_digests(b'style')}; "
    "img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FIELDS: Final = (
    f"Content-Security-Policy: {_POLICY}\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
    "Cache-Control: no-cache\r\n"
).encode()
_KIND: Final = b"text/html; charset=utf-8"


def page(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """GET /."""
    app.metrics.answered("page", 200)
    request.respond(200, (_HTML,), kind=_KIND, fields=_FIELDS)
