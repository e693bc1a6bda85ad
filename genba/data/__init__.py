"""From a source to a checked, split, immutable dataset version, in bounded memory."""
