"""Where a number of the table comes from: `python -m calibrate explain`."""
