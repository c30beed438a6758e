"""From a request to songs: the stages in order, and what keeps a model loaded between requests."""
