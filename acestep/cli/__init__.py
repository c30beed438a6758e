"""The `acestep` command."""
