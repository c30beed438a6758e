"""Campaigns of several kinds of card at once, on cards of other machines."""
