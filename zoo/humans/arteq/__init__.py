"""ArtEq: SMPL from point clouds with features that turn with each body part."""
