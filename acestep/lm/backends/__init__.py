"""What runs the language model: PyTorch, vLLM or MLX."""
