"""The engine `template-name` for Genba."""
