"""End-to-end variational network, the learned baseline of the family."""
