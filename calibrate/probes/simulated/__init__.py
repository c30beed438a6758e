"""A card that exists only in the books: its allocator, its kernels, and the prober on top."""
