"""Sequence models: what they say, and when."""
