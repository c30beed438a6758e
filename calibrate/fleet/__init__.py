"""Campaigns of several kinds of card at once, on cards of this machine or of others."""
