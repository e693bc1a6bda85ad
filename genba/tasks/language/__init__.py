"""Capabilities of language: assistants and classification of texts."""
