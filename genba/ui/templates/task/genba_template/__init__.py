"""The task `template-name` for Genba."""
