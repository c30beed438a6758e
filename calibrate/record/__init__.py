"""The measurement file: what it holds, what it must satisfy, and how two of them differ."""
