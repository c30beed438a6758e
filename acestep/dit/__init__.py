"""The diffusion transformer and the VAE: the modules that turn words and noise into audio."""
