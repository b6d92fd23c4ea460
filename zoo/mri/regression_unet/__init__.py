"""A U-Net trained on the squared error, the rival of diffusion."""
