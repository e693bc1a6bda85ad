"""The target `template-name` for Genba."""
