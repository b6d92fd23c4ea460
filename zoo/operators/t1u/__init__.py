"""T1U: a U-Net on the kept modes of one transform."""
