"""Procedural multi-coil brains: anatomy, contrast, coils and acquisition, all drawn from a seed."""

from zoo.mri.phantom.acquisition import CONTRASTS, Contrast, PhantomVolume, generate

__all__ = ["CONTRASTS", "Contrast", "PhantomVolume", "generate"]
