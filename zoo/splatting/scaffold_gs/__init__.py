"""Scaffold-GS: anchors whose features a small decoder turns into Gaussians."""
