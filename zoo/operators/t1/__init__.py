"""Transform Once: one transform, a network on the kept modes, one inverse transform or none."""
