"""How much memory the host has left."""

from pathlib import Path


def available_host_bytes() -> int:
    """Bytes the system calls available; 0 where it does not say."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0
