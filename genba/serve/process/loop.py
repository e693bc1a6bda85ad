"""The event loop: uvloop, or that of the standard library where there is none."""

import asyncio
from collections.abc import Callable

new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
try:
    import uvloop
except ModuleNotFoundError:  # there is none for Windows
    pass
else:
    new_loop = uvloop.new_event_loop
