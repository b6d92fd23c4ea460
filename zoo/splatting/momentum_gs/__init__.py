"""Momentum-GS: large scenes in blocks that share one decoder."""
