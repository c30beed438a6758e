"""How long a song takes on a card that is not here: the counted work, at the speed of the card."""
