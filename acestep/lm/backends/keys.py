"""How checkpoints of the language model name their tensors."""


def prefixed(key: str) -> str:
    """The name of a tensor as in a whole model; files saved without the head lack the `model.` in front."""
    return key if key.startswith(("model.", "lm_head.")) else f"model.{key}"
