"""What is on the device when: placement, offload, the memory for denoising, and the VRAM guard."""
