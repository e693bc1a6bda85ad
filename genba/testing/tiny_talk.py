"""The tiny language model for tests; see `genba.learn.language.tiny`."""

from genba.learn.language.tiny import (
    CONTEXT,
    END,
    HEADS,
    INNER,
    KEY_HEADS,
    LAYERS,
    SPECIAL,
    TEMPLATE,
    WIDTH,
    tiny_talk,
    tiny_weights,
)

__all__ = [
    "CONTEXT",
    "END",
    "HEADS",
    "INNER",
    "KEY_HEADS",
    "LAYERS",
    "SPECIAL",
    "TEMPLATE",
    "WIDTH",
    "tiny_talk",
    "tiny_weights",
]
