"""The measurement file: its fields, its rules, and the comparison of two files."""
