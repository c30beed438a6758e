"""The main memory, for cards that share it."""

import os


def host_bytes() -> int:
    """Bytes of main memory of this machine; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
