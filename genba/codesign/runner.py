"""Measuring candidates of a search; see `genba.targets.runner`, which the targets use too."""

from genba.targets.runner import Benched, Isolated, Order, bench, close, measure, open_engine

__all__ = ["Benched", "Isolated", "Order", "bench", "close", "measure", "open_engine"]
