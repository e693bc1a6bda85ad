"""What stands around a language model: rails, a student, documents, and where answers came from."""

from genba.edge.assistant.assistant import ASSISTANT_FILE, Assistant
from genba.edge.assistant.guard import Ending, Guard
from genba.edge.assistant.plan import Plan
from genba.edge.assistant.seams import (
    Answered,
    Block,
    Checked,
    Embed,
    Gate,
    Library,
    Mask,
    Passage,
    Question,
    Rails,
    Ruled,
    Source,
    Student,
)

__all__ = [
    "ASSISTANT_FILE",
    "Answered",
    "Assistant",
    "Block",
    "Checked",
    "Embed",
    "Ending",
    "Gate",
    "Guard",
    "Library",
    "Mask",
    "Passage",
    "Plan",
    "Question",
    "Rails",
    "Ruled",
    "Source",
    "Student",
]
