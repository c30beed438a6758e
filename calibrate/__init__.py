"""Measures `acestep` through its public calls and derives the tier table."""
