"""ViT: the vision transformer with a GELU MLP, KAT's rival."""
