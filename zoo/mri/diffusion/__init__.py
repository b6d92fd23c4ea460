"""Conditional denoising diffusion with data consistency in every step."""
