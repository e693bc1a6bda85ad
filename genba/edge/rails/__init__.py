"""Rails: what an assistant may be asked, what it may read and what it may say.

On the way in, deterministic rails first (size, hidden characters, forged marks, personal data,
topics, rules of injection on every reading of a text), then a small classifier. On the way out a
guard that holds a stream back exactly as far as it could still become a secret or personal data.
"""

from genba.edge.rails.canary import canary_of, with_canary
from genba.edge.rails.classifier import RAILS_FILE, Classifier
from genba.edge.rails.entry import Rails, blocks
from genba.edge.rails.guard import Guard
from genba.edge.rails.policy import RAILS, Policy

__all__ = [
    "RAILS",
    "RAILS_FILE",
    "Classifier",
    "Guard",
    "Policy",
    "Rails",
    "blocks",
    "canary_of",
    "with_canary",
]
