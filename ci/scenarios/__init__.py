"""Requests as people make them, on a simulated card: what they are granted, and what memory they take."""
