"""Audio files: read as two channels at one rate, and written."""
