"""EDGS: Gaussians from dense matches, no densification."""
