"""A simulated card: a model of its allocator and its kernels, and the prober that uses them."""
