"""Motion: ASF/AMC, BVH and AMASS files as SMPL poses over time."""
