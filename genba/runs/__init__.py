"""Doing stages once: keys, reuse, resume, leases, budgets, cancellation, progress."""
