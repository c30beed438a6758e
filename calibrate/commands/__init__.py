"""The commands of `python -m calibrate`, one file each."""
