"""Hardware and software chosen together: candidates, models of their cost, search, constraints."""
