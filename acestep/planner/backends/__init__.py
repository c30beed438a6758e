"""Libraries that run the language model, behind one call."""
