"""Processes: how many, started, watched, renewed."""
