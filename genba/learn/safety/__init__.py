"""Fitting the plan of a safety envelope from rows; what a device does with it is `genba.edge`."""
