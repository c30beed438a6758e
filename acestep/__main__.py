"""`python -m acestep` is `acestep`."""

from acestep.cli.main import main

main()
