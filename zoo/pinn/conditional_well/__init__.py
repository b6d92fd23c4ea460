"""All finite square wells of a range by one physics-informed network."""
