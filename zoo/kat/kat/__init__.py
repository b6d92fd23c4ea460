"""KAT: the Kolmogorov-Arnold Transformer."""
