"""A virtual NVIDIA card: PyTorch's CUDA build on a card that has memory and no cores."""
