"""The checkpoints: what there is, how it is loaded, and how it computes."""
