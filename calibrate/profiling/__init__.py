"""The modes of the profiler."""
