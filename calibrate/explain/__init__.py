"""`python -m calibrate explain`: the source of a number of the table."""
