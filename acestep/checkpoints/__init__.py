"""Weights on disk: which exist, where they are, and how they become modules."""
