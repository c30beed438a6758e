"""The cards and the main memory of this machine, and how they are found."""
