"""`docs/explorer.html`: what a card may do, computed in the browser from the numbers of the table."""
