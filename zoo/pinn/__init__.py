"""Quantum wells in one dimension: potentials, reference solvers, and physics-informed networks."""
