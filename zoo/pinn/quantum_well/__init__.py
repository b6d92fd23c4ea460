"""Bound states of one potential by a physics-informed network."""
