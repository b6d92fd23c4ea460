"""KAT: Kolmogorov-Arnold transformers, built on group-wise rational functions."""

from zoo.kat.describe import LearnedRational, describe_rationals
from zoo.kat.fitting import fit_rational
from zoo.kat.replace import replace_mlp

__all__ = ["LearnedRational", "describe_rationals", "fit_rational", "replace_mlp"]
