"""Pages for readers: the guide in four languages, its plots, one record as a page, and the text of a pull request."""
