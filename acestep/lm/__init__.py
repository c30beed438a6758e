"""The language model that plans a song: prompts, grammar, sampling and its backends."""
