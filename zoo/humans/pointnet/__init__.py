"""PointNet with ArtEq's heads: its rival without equivariance."""
