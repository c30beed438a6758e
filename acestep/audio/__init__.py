"""Audio files: read into two channels at one rate, and written."""
