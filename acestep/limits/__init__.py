"""What a card may do: the card, its capabilities, and the plan made for it."""
