"""What a card may do: its capabilities, and the plan made for it."""
