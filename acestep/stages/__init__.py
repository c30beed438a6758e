"""The stages of a song, each a function of its inputs and a place to run."""
