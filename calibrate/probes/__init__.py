"""Ways to ask whether a run fits."""
