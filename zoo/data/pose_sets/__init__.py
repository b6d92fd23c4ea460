"""Readers of the raw downloads of pose data sets; each gives rows of SPIN's annotations."""
