"""The source `template-name` for Genba."""
