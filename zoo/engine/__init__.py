"""What every run shares: the trainer and its parts, the run folder, training and testing."""
