"""`python -m acestep` is `acestep`."""

from acestep.cli import main

main()
