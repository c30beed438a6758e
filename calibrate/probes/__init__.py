"""Probers: they find out whether a run fits."""
