"""The classifier of attacks: the shipped prompts, training, and how well rails close."""

from genba.learn.rails.fit import SETTINGS, Settings, fit
from genba.learn.rails.measure import measure
from genba.learn.rails.prompts import Prompt, generated, prompts

__all__ = ["SETTINGS", "Prompt", "Settings", "fit", "generated", "measure", "prompts"]
