"""Readers of file formats: each turns one file into Arrow batches of about the same size."""
