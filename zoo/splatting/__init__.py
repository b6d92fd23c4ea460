"""Gaussian splatting: scenes as clouds of Gaussians, fitted to photographs."""
