"""Where weights rest, how small they are, and how audio leaves the device."""
