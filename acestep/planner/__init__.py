"""The 5 Hz language model: what is planned of a song before any sound is made."""
