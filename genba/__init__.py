"""Genba: an open AI factory, from raw data to a deployed, watched, self-improving model."""

__version__ = "0.1.0"
