"""The kinds of capability a line can have."""
