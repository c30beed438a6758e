"""Adapters of the transformer, LoRA and LoKr: how their files are read, and how they become part of its weights."""
