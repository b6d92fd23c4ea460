"""GR-KAN as a function approximator."""
