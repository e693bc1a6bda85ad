"""Frozen values, errors and protocols that every part speaks. Standard library and numpy only."""
