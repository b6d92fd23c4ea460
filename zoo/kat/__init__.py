"""KAT: Kolmogorov-Arnold transformers, built on group-wise rational functions."""
