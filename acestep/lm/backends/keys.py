"""The tensor names that language model checkpoints use."""


def prefixed(key: str) -> str:
    """Return the tensor name as in the complete model: files saved without the head lack the prefix `model.`."""
    return key if key.startswith(("model.", "lm_head.")) else f"model.{key}"
