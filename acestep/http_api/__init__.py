"""Songs over HTTP, for programs."""
