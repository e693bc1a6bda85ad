"""Tasks on sensor readings."""
