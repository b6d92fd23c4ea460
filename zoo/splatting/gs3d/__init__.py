"""3DGS: optimisation from sparse points with densification."""
