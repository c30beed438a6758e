"""From a request to songs: the stages in order, and the service that keeps a model loaded between requests."""
