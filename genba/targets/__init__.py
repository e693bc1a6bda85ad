"""Devices a package can be made for: what they are, how to measure there, what it costs."""
